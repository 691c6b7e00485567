"""What the holders of the offline keys decide: shown, so that it can be drafted, and taken in.

The server has none of those keys, and believes a document for its signatures alone: whoever brings it could
have found it in the street.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import structlog
from fleetwright.verify.errors import Malformed
from fleetwright.verify.keys import KEYS_TARGET, AttestationKeys, parse_keys

from controlplane.clock import Clock, to_micros
from controlplane.errors import FailedPrecondition, invalid
from controlplane.packaging.releasing import Releases
from controlplane.packaging.store import metadata as stored
from controlplane.packaging.store.metadata import TargetRecord
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.trust.tuf import rotation
from controlplane.trust.tuf.roles import Expiries, OnlineKeys, RepositoryError
from controlplane.trust.tuf.standing import RoleStanding, standings
from controlplane.trust.tuf.state import RepositoryState, released_keys

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Documents:
    """What somebody brings; None for what is not among it."""

    root: bytes | None = None
    targets: bytes | None = None
    key_document: bytes | None = None

    def beyond(self, state: RepositoryState) -> Documents:
        """Return those of the two that are not in force yet."""
        root = None if self.root == state.roots[-1] else self.root
        targets = None if self.targets == state.targets else self.targets
        return replace(self, root=root, targets=targets)

    @property
    def empty(self) -> bool:
        """Whether nothing is left to take in."""
        return self.root is None and self.targets is None


@dataclass(frozen=True, slots=True)
class Standing:
    """What is in force."""

    root: bytes
    targets: bytes
    key_document: bytes
    roles: Sequence[RoleStanding]
    warnings: Sequence[str]


class OfflineRoles:
    """Use cases around the roles root and targets."""

    def __init__(self, releases: Releases, clock: Clock) -> None:
        self._releases, self._repository = releases, releases.repository
        self._clock = clock
        self._expiries = Expiries()

    async def standing(self) -> Standing:
        """Return what is in force. Raises ``FailedPrecondition`` TRUST_NOT_SET_UP."""
        state = await self._repository.state()
        return Standing(
            root=state.roots[-1],
            targets=state.targets,
            key_document=await self._repository.key_document(),
            roles=await asyncio.to_thread(standings, state),
            warnings=[str(warning) for warning in await self._releases.warnings()],
        )

    async def install(
        self, brought: Documents, *, validate_only: bool = False
    ) -> tuple[bool, Sequence[RoleStanding]]:
        """Take documents in, as one step; returns whether something changed, and how the roles stand then.

        Raises ``InvalidArgument`` where neither is given, and ``FailedPrecondition``: TRUST_REFUSED, which
        says what is missing, and TRUST_NOT_SET_UP where this process has no keys to go on with.
        """
        if brought.empty:
            raise invalid("root", "neither root nor targets is given: bring one of them at least")
        # What is to sign from now on may have come into the folder a moment ago.
        online = await self._repository.keys.online(again=True)
        state = await self._repository.state()
        fresh = brought.beyond(state)
        if fresh.empty:
            return False, await asyncio.to_thread(standings, state)
        keys_target = await self._key_document(fresh)
        if keys_target is not None:
            _check_attests(keys_target[1], {one.value: key.key_id for one, key in online.attesters.items()})
        await asyncio.to_thread(self._accepted, fresh, state, online.keys)
        if validate_only:
            return False, await asyncio.to_thread(standings, state)
        after = await self._change(brought, keys_target[0] if keys_target is not None else None)
        return True, await asyncio.to_thread(standings, after)

    async def _change(self, brought: Documents, document: bytes | None) -> RepositoryState:
        target = None
        if document is not None:
            sha256 = await self._repository.keep(document)
            target = TargetRecord(KEYS_TARGET, "", "", sha256, len(document))

        def make(state: RepositoryState, keys: OnlineKeys) -> RepositoryState:
            return self._accepted(brought.beyond(state), state, keys)

        async def write(work: UnitOfWork, _after: RepositoryState) -> None:
            if target is not None:
                await stored.put_targets(work, [target], to_micros(self._clock.now()))

        after = await self._repository.change(make, write)
        versions = after.versions
        _log.warning("offline roles changed", root=versions["root"], targets=versions["targets"])
        return after

    def _accepted(self, fresh: Documents, state: RepositoryState, keys: OnlineKeys) -> RepositoryState:
        if fresh.empty:
            return state
        now, expiries = self._clock.now(), self._expiries
        try:
            made = rotation.accept(state, keys, now, expiries, root=fresh.root, targets=fresh.targets)
        except RepositoryError as error:
            raise refused(str(error)) from None
        return made.state

    async def _key_document(self, fresh: Documents) -> tuple[bytes, AttestationKeys] | None:
        """Return the document that new targets metadata releases, where it is another one than before."""
        if fresh.targets is None:
            return None
        try:
            wanted = await asyncio.to_thread(released_keys, fresh.targets)
        except RepositoryError as error:
            raise refused(f"targets: {error}") from None
        current = await self._repository.key_document()
        for content in (fresh.key_document, current):
            if content is not None and hashlib.sha256(content).hexdigest() == wanted:
                return None if content == current else (content, _parsed(content))
        raise refused(
            f"key_document: targets metadata releases {KEYS_TARGET} with SHA-256 {wanted}: bring "
            "that document too"
        )


def refused(why: str) -> FailedPrecondition:
    """Return the refusal of documents that cannot be taken in."""
    return FailedPrecondition("TRUST_REFUSED", why)


def _parsed(content: bytes) -> AttestationKeys:
    try:
        return parse_keys(content)
    except Malformed as error:
        raise refused(f"key_document: {error}") from None


def _check_attests(document: AttestationKeys, own: dict[str, str]) -> None:
    """Refuse a document by which agents would refuse all that this server attests from now on."""
    for purpose, key_id in own.items():
        if purpose not in {one.value for one in document.purposes_of(key_id)}:
            raise refused(
                f"key_document: the key {key_id[:16]}, with which this server attests {purpose}, is not "
                "listed for it: draft it again with that key"
            )
