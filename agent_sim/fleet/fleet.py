"""The fleet: enrols its members, connects them a few at a time, and runs them until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent_sim.fleet.counters import Counters, Receipts
from agent_sim.fleet.member import MAX_POINTS, Member
from agent_sim.fleet.packages import FleetPackages
from agent_sim.fleet.profiles import Profile, assign
from agent_sim.fleet.witness import Witness
from agent_sim.protocol.enrollment import Enroller
from agent_sim.protocol.errors import AgentError
from agent_sim.protocol.identity import IdentityStore, MemoryIdentityStore
from agent_sim.protocol.identity_folder import FolderIdentityStore
from agent_sim.protocol.join_token import JoinToken
from agent_sim.protocol.journal import Journal, MemoryJournal, SQLiteJournal
from agent_sim.protocol.root_fetch import fetch_root
from agent_sim.protocol.trusted_root import TRUSTED_ROOT, write_root

log = logging.getLogger(__name__)

_RESERVE_BYTES = 256 << 10
"""Kept of the disk for each journal: invented results are small, and thousands share one disk."""


@dataclass(frozen=True)
class FleetConfig:
    """What a fleet is made of."""

    agents: int
    shares: dict[Profile, float]
    seed: str
    id_prefix: str
    server_addresses: tuple[str, ...]
    enrollment_address: str
    join_token: JoinToken | None
    connect_concurrency: int
    identities: Path | None
    """Folder in which identities are kept and found again; None to forget them."""
    journals: Path | None = None
    """Folder in which journals are kept and found again, one file each; None for journals in memory."""
    trusted_root: bytes | None = None
    """Root of the repository that packages are judged by; None for the one that comes at enrolment."""
    packages: Path | None = None
    """Folder in which each agent keeps what it has seen of the repository; None to forget it."""


class Fleet:
    """Simulated agents in this process and on this event loop."""

    def __init__(
        self, config: FleetConfig, counters: Counters, witness: Witness | None, receipts: Receipts | None
    ) -> None:
        self._config = config
        self._counters = counters
        rng = random.Random(f"{config.seed}/fleet")  # noqa: S311 - simulation, not secrecy
        self._rng = rng
        profiles = assign(config.shares, config.agents, rng)
        width = len(str(config.agents))
        packages = FleetPackages(config.trusted_root or _found_root(config), config.packages)
        self._packages = packages
        self._members = [
            Member(
                f"{config.id_prefix}-{number:0{width}d}",
                profile,
                config.seed,
                counters,
                witness,
                receipts,
                packages,
            )
            for number, profile in enumerate(profiles, start=1)
        ]
        self._gate = asyncio.Semaphore(config.connect_concurrency)
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.all_tried = asyncio.Event()
        """Set once every member has connected, or has failed for good."""
        counters.agents = config.agents

    def stop(self) -> None:
        """Ask every agent to leave in order."""
        self._stop.set()

    @property
    def stopping(self) -> asyncio.Event:
        """Set once the fleet was asked to stop."""
        return self._stop

    def close(self) -> None:
        """Let go of what the members shared, once they have left."""
        self._packages.close()

    async def enroll(self) -> dict[str, IdentityStore]:
        """Give every member an identity, a found one or a new one. Raises EnrollmentError."""
        stores: dict[str, IdentityStore] = {member.agent_id: self._store(member) for member in self._members}
        found = {agent_id for agent_id, store in stores.items() if store.current() is not None}
        self._counters.enrolled = len(found)
        missing = [member for member in self._members if member.agent_id not in found]
        if missing:
            await self._enroll_missing(missing, stores)
        return {agent_id: store for agent_id, store in stores.items() if store.current() is not None}

    async def run(self, stores: dict[str, IdentityStore]) -> None:
        """Connect and run every member that has an identity; returns when all have left."""
        loop = asyncio.get_running_loop()
        connecting = []
        for member in self._members:
            if member.agent_id in stores:
                connecting.append(loop.create_task(self._connect(member, stores[member.agent_id])))
        await asyncio.gather(*connecting)
        self.all_tried.set()
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _store(self, member: Member) -> IdentityStore:
        if self._config.identities is None:
            return MemoryIdentityStore()
        return FolderIdentityStore(self._config.identities / member.agent_id)

    def _journal(self, member: Member) -> Journal:
        if self._config.journals is None:
            return MemoryJournal(max_points=MAX_POINTS)
        path = self._config.journals / f"{member.agent_id}.sqlite3"
        return SQLiteJournal(path, max_points=MAX_POINTS, reserve_bytes=_RESERVE_BYTES)

    async def _enroll_missing(self, missing: list[Member], stores: dict[str, IdentityStore]) -> None:
        token, address = self._config.join_token, self._config.enrollment_address
        if token is None:
            raise AgentError(
                f"{len(missing)} agents have no identity: give --join-token-file, "
                "or --identities with a folder that holds them all"
            )
        # Fetched once for all: it is the same root, and the token's digest has proven it.
        root = await fetch_root(address, token.root_digest)
        async with Enroller(address, root, rng=self._rng) as enroller:

            async def one(member: Member) -> None:
                async with self._gate:
                    if self._stop.is_set():
                        return
                    made = await enroller.enroll(token, member.agent_id, member.host.facts())
                self._keep_root(made.trusted_root)
                stores[member.agent_id].save(made.identity)
                self._counters.enrolled += 1

            outcomes = await asyncio.gather(*(one(member) for member in missing), return_exceptions=True)
        self._count_refusals([one for one in outcomes if one is not None])

    def _keep_root(self, root: bytes) -> None:
        if self._packages.delivered(root) and self._config.identities is not None:
            write_root(self._config.identities, root)

    def _count_refusals(self, refusals: list[BaseException]) -> None:
        for error in refusals:
            if not isinstance(error, AgentError):
                raise error
            self._counters.errors[getattr(error, "reason", "") or type(error).__name__] += 1
        if refusals:
            log.error("%d agents were not enrolled; the first because: %s", len(refusals), refusals[0])

    async def _connect(self, member: Member, store: IdentityStore) -> None:
        """Start a member; hold one of the places at the gate until it is connected."""
        async with self._gate:
            if self._stop.is_set():
                return
            tried = asyncio.Event()
            member.observer.on_first_connection = tried.set
            task = asyncio.get_running_loop().create_task(self._run_member(member, store, tried.set))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await tried.wait()

    async def _run_member(self, member: Member, store: IdentityStore, ended: Callable[[], None]) -> None:
        try:
            journal = self._journal(member)
            try:
                await member.make_agent(store, self._config.server_addresses, journal).run(self._stop)
            finally:
                await journal.close()
        except AgentError as error:
            self._counters.stopped_early += 1
            self._counters.errors[type(error).__name__] += 1
            log.error("agent %s stopped: %s", member.agent_id, error)
        except Exception as error:  # One engine's defect must be seen, and must not end the others.
            self._counters.stopped_early += 1
            self._counters.errors[type(error).__name__] += 1
            log.exception("agent %s crashed", member.agent_id)
        finally:
            ended()


def _found_root(config: FleetConfig) -> bytes:
    """Return the root that came with identities which are used again; nothing where none did."""
    try:
        return (config.identities / TRUSTED_ROOT).read_bytes() if config.identities is not None else b""
    except FileNotFoundError:
        return b""
