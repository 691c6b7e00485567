"""Releases: what agents may have, published, withdrawn and kept current.

All of it comes to one thing: to let the metadata agree with what was decided last. So every call is
harmless when it is repeated, late, or made by two processes at once, and what a crash left is mended by
``reconcile``. Bytes are stored before the metadata names them, and the decision is looked at again in the
transaction that publishes: what was refused meanwhile is not released.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
from fleetwright.verify.chain import LARGEST_ATTESTATIONS, verify_attestations
from fleetwright.verify.keys import parse_keys
from fleetwright.verify.reports import Outcome

from controlplane.clock import Clock, to_micros
from controlplane.errors import FailedPrecondition, NotFound, ServiceError, Unavailable
from controlplane.packaging import release_rules as rules
from controlplane.packaging.blobs import BlobMissing, Blobs
from controlplane.packaging.release_keys import ReleaseKeys
from controlplane.packaging.release_rules import Evidence, Plan
from controlplane.packaging.repository import Repository, damaged
from controlplane.packaging.store import metadata, releases
from controlplane.packaging.store.releases import Candidate, Wanted
from controlplane.storage.database import Database
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.trust.tuf import expiry, publishing
from controlplane.trust.tuf.expiry import ExpiryWarning
from controlplane.trust.tuf.roles import Expiries, OnlineKeys, RepositoryError, Target
from controlplane.trust.tuf.state import RepositoryState

_ATTEMPTS = 16
_STEP = 100
_WARN_AGAIN = timedelta(days=1)
_NEVER = datetime.min.replace(tzinfo=UTC)

_log = structlog.get_logger(__name__)


class _Outdated(Exception):
    """The package was judged again meanwhile: plan anew."""


@dataclass(frozen=True, slots=True)
class Release:
    """A package in a channel. ``attestations`` is the digest of their file, ``versions`` of each role."""

    channel: str
    target_path: str
    attestations: str
    versions: Mapping[str, int]


class Releases:
    """Use cases around releases. ``scratch`` is a folder on a disk of this machine's own."""

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        clock: Clock,
        keys: ReleaseKeys,
        scratch: Path,
        expiries: Expiries | None = None,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._clock = clock
        self._expiries = expiries or Expiries()
        self._warned: dict[str, datetime] = {}
        self.repository = Repository(database, blobs, clock, keys, scratch, self._expiries)

    # --- packages

    async def publish(self, package_sha256: str) -> None:
        """Release a package in the channels that its pipelines were for, with the attestations that stand.

        Raises ``NotFound`` PACKAGE_UNKNOWN, and ``FailedPrecondition``: PACKAGE_NOT_RELEASED where policy,
        its evidence or the repository do not let it, and TRUST_NOT_SET_UP.
        """
        candidate = await self._found(package_sha256)
        _check_decision(candidate)
        await self._agree(package_sha256)

    async def release(self, package_sha256: str, channel: str, file_name: str) -> Release:
        """Release a package in a channel too, as a pipeline that ends asks for. Raises as ``publish``."""
        _check_decision(await self._found(package_sha256))
        await self._agree(package_sha256, Wanted(channel, file_name))
        candidate = await self._found(package_sha256)
        path = rules.paths(candidate).get(channel)
        if path is None:
            raise _withdrawn(package_sha256)
        [attestations] = [one for one in candidate.live if one.channel == channel and one.evidence]
        return Release(channel, path, attestations.sha256, await self.repository.versions())

    async def withdraw(self, package_sha256: str, reason: str) -> None:
        """Take a package back that was decided against; one that agents may have stays.

        Agents refuse it from their next refresh on, and get its bytes no more at once. Raises as ``publish``,
        but for a package that is unknown or not released, which is no change.
        """
        if await self._agree(package_sha256):
            _log.warning("a package was withdrawn", package=package_sha256, why=reason)

    async def released(self, sha256: str) -> bool:
        """Return whether agents may have the bytes of a digest: a package, its attestations, or the keys."""
        async with self._database.reading() as connection:
            return await metadata.served(connection, sha256) is not None

    async def metadata(self, file_name: str) -> bytes:
        """Return a file of the metadata. Raises as ``Repository.file``."""
        return await self.repository.file(file_name)

    async def channels(self) -> list[str]:
        """Return the channels that there are. Raises ``FailedPrecondition`` TRUST_NOT_SET_UP."""
        return list((await self.repository.state()).channels)

    # --- on schedules

    async def refresh(self) -> bool:
        """Sign again what ends soon, and delete what nobody asks for; returns whether something was signed.

        Without keys and without a repository nothing is done. Raises as ``Repository.change``.
        """
        if not self.repository.has_keys and not await self._begun():
            return False
        stamp = (await self.repository.state()).timestamp
        after = await self.repository.change(self._refreshed, _nothing_more)
        await self.repository.prune()
        await self._warn()
        return after.timestamp != stamp

    async def reconcile(self) -> int:
        """Let the metadata agree with what was decided; returns how many packages it did not agree on.

        One that cannot be released is logged, and holds no other one up.
        """
        if not self.repository.has_keys:
            return 0
        count, after = 0, ""
        while True:
            async with self._database.reading() as connection:
                found = await releases.disagreeing(connection, after, _STEP)
            for package_sha256 in found:
                count += await self._mend(package_sha256)
                after = package_sha256
            if len(found) < _STEP:
                return count

    async def _mend(self, package_sha256: str) -> bool:
        try:
            return await self._agree(package_sha256)
        except ServiceError as error:
            if error.reason == "TRUST_NOT_SET_UP":
                raise
            _log.warning("a package cannot be released", package=package_sha256, error=error.message)
            return False

    async def _begun(self) -> bool:
        async with self._database.reading() as connection:
            return await metadata.find_file(connection, metadata.TIMESTAMP) is not None

    async def warnings(self) -> list[ExpiryWarning]:
        """Return what ends soon, the most urgent first. Raises as ``channels``."""
        state = await self.repository.state()
        keys = parse_keys(await self.repository.key_document())
        now = self._clock.now()
        return await asyncio.to_thread(expiry.warnings, state, now, self._expiries, keys)

    async def _warn(self) -> None:
        now = self._clock.now()
        for warning in await self.warnings():
            if now - self._warned.get(warning.role, _NEVER) >= _WARN_AGAIN:
                self._warned[warning.role] = now
                _log.warning("release metadata ends soon", role=warning.role, what=str(warning))

    def _refreshed(self, state: RepositoryState, keys: OnlineKeys) -> RepositoryState:
        return publishing.refresh(state, keys, self._clock.now(), self._expiries).state

    # --- one package

    async def _found(self, package_sha256: str) -> Candidate:
        async with self._database.reading() as connection:
            found = await releases.find(connection, package_sha256)
        if found is None:
            raise NotFound("PACKAGE_UNKNOWN", f"package: there is no packages/{package_sha256}")
        return found

    async def _agree(self, package_sha256: str, *wanted: Wanted) -> bool:
        """Release or withdraw a package as was decided; returns whether something changed."""
        for _ in range(_ATTEMPTS):
            async with self._database.reading() as connection:
                candidate = await releases.find(connection, package_sha256)
            if candidate is None:
                return False
            chosen = _chosen(candidate, wanted)
            channel = wanted[0].channel if wanted else ""
            if rules.is_agreed(candidate, chosen, channel):
                return False
            try:
                await self._change(candidate, chosen, channel)
            except _Outdated:
                continue
            await self._forget_replaced(candidate)
            return True
        raise Unavailable("UNAVAILABLE", f"packages/{package_sha256} is judged without a pause; try again")

    async def _change(self, candidate: Candidate, chosen: Mapping[str, str], channel: str) -> None:
        evidence = await self._keep_evidence(candidate) if chosen else None
        if chosen and not candidate.live:
            await self._check_bytes(candidate)
        planned = rules.plan(candidate, chosen, evidence, channel)
        now = self._clock.now()

        def make(state: RepositoryState, keys: OnlineKeys) -> RepositoryState:
            return _published(state, planned, keys, now, self._expiries)

        async def write(work: UnitOfWork, _after: RepositoryState) -> None:
            await _write(work, candidate, planned, to_micros(now))

        await self.repository.change(make, write)
        if evidence is not None and not await self._blobs.has(evidence.sha256):
            await self._keep_evidence(candidate)  # Who withdrew it deleted it meanwhile.
        _log.info(
            "releases changed",
            package=candidate.sha256,
            released=[one.target_path for one in planned.put],
            withdrawn=[one.target_path for one in planned.withdraw],
        )

    async def _check_bytes(self, candidate: Candidate) -> None:
        """What agents would refuse for its digest is not released in the first place."""
        try:
            sound = await self._blobs.size(candidate.sha256) == candidate.size
            sound = sound and await self._blobs.verify(candidate.sha256)
        except BlobMissing as error:
            raise damaged(candidate.sha256, error) from None
        if not sound:
            raise damaged(candidate.sha256, ValueError("the stored bytes have another size or digest"))

    async def _keep_evidence(self, candidate: Candidate) -> Evidence:
        async with self._database.reading() as connection:
            found = await releases.envelopes(connection, candidate.sha256)
        digests = tuple(sha256 for _, sha256 in candidate.evidence)
        if not set(digests) <= found.keys():
            raise _Outdated
        content = b"".join(found[sha256] + b"\n" for sha256 in digests)
        keys = await self.repository.key_document()
        reasons = await asyncio.to_thread(_against, candidate.sha256, content, keys, self._clock.now())
        if reasons:
            raise FailedPrecondition(
                "PACKAGE_NOT_RELEASED",
                f"packages/{candidate.sha256}: agents would refuse its attestations: {'; '.join(reasons)}",
            )
        return Evidence(await self.repository.keep(content), len(content), digests)

    async def _forget_replaced(self, before: Candidate) -> None:
        """Delete files of attestations that no path is released with any more."""
        digests = {one.sha256 for one in before.live if one.evidence}
        if not digests:
            return
        async with self._database.unit_of_work() as work:
            # Who releases the same file again, as after a decision that was taken back, waits for this.
            await metadata.lock_timestamp(work.connection)
            for sha256 in digests - await metadata.still_released(work.connection, digests):
                await self._blobs.delete(sha256)


def _against(package: str, lines: bytes, keys: bytes, now: datetime) -> list[str]:
    """Return why agents would refuse a package's attestations; nothing where they would not."""
    if len(lines) > LARGEST_ATTESTATIONS:
        return [f"{len(lines)} bytes of attestations, where agents read {LARGEST_ATTESTATIONS}"]
    checks = verify_attestations(package, lines, parse_keys(keys), now)
    return [f"{check.name}: {check.detail}" for check in checks if check.outcome is not Outcome.OK]


def _chosen(candidate: Candidate, wanted: tuple[Wanted, ...]) -> dict[str, str]:
    try:
        return rules.paths(candidate, wanted)
    except RepositoryError as error:
        raise FailedPrecondition("PACKAGE_NOT_RELEASED", str(error)) from None


def _published(
    state: RepositoryState, planned: Plan, keys: OnlineKeys, now: datetime, expiries: Expiries
) -> RepositoryState:
    for channel in dict.fromkeys(one.channel for one in planned.withdraw):
        gone = [one.target_path for one in planned.withdraw if one.channel == channel]
        state = publishing.revoke(state, channel, gone, keys, now, expiries).state
    for channel in dict.fromkeys(one.channel for one in planned.put):
        fresh = [
            Target(one.target_path, one.size, one.sha256) for one in planned.put if one.channel == channel
        ]
        state = publishing.publish(state, channel, fresh, keys, now, expiries).state
    return state


async def _write(work: UnitOfWork, candidate: Candidate, planned: Plan, now: int) -> None:
    if await releases.find(work.connection, candidate.sha256, lock=True) != candidate:
        raise _Outdated
    await _check_paths(work, planned)
    await metadata.put_targets(work, planned.put, now)
    await metadata.withdraw_targets(work, [one.target_path for one in planned.withdraw], now)
    await releases.show(work, candidate.sha256, *planned.shown)


async def _check_paths(work: UnitOfWork, planned: Plan) -> None:
    wanted = {one.target_path: one for one in planned.put if not one.evidence}
    for before in await metadata.targets_at(work.connection, list(wanted)):
        if before.sha256 != wanted[before.target_path].sha256:
            raise FailedPrecondition(
                "PACKAGE_NOT_RELEASED",
                f"{before.target_path}: was released with SHA-256 {before.sha256}, which was withdrawn: give "
                "other bytes another version",
            )


async def _nothing_more(_work: UnitOfWork, _after: RepositoryState) -> None:
    return


def _check_decision(candidate: Candidate) -> None:
    if not candidate.decision.releases:
        raise _withdrawn(candidate.sha256)


def _withdrawn(package_sha256: str) -> FailedPrecondition:
    return FailedPrecondition(
        "PACKAGE_NOT_RELEASED",
        f"packages/{package_sha256}: policy does not let agents have it: see its decision_reasons",
    )
