"""Enrolling and running: the parts put together. The only place where the agent's parts meet."""

from __future__ import annotations

import asyncio
import random
import resource
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path

import structlog
from fleetwright.v1 import work_pb2

from agent_sim.agent.host import RealHost
from agent_sim.agent.inventory import host_facts
from agent_sim.agent.policy import Policy, load_policy, write_default_policy
from agent_sim.agent.run_folder import own_account
from agent_sim.agent.running import RunningStatus
from agent_sim.agent.state import StateError, StateFolder
from agent_sim.protocol.agent import Agent
from agent_sim.protocol.clock import SystemClock
from agent_sim.protocol.config import AgentConfig
from agent_sim.protocol.enrollment import enroll
from agent_sim.protocol.errors import IdentityError
from agent_sim.protocol.identity import AgentIdentity
from agent_sim.protocol.identity_folder import FolderIdentityStore
from agent_sim.protocol.join_token import JoinToken
from agent_sim.protocol.journal import Journal, SQLiteJournal
from agent_sim.protocol.results import complete
from agent_sim.protocol.rules import AttemptState
from agent_sim.protocol.served import ServedFiles

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What an enrolment left in the state folder."""

    identity: AgentIdentity
    policy_written: bool
    root: RootKept


class RootKept(Enum):
    """What became of the root that packages are judged by."""

    WRITTEN = "as the server gave it"
    LEFT = "the one that was there, which is the server's too"
    ANOTHER = "the one that was there; the server gave another one"
    NONE = "none: the server has none yet"


async def enroll_host(
    state: StateFolder,
    server: str,
    join_token: str,
    agent_id: str,
    *,
    addresses: Sequence[str] = (),
    replace_identity: bool = False,
    http_proxy: str | None = None,
) -> Enrolled:
    """Enrol this host at ``server`` (host:port) and keep its identity in ``state``.

    The folder is made, locked and tried before the token is spent. ``addresses``
    take the place of those that the server names. The root that the server gives is kept, unless there is
    one already and not ``replace_identity``. All goes through ``http_proxy`` where one
    is given. Raises ``StateError`` where the
    folder holds an identity already, unless ``replace_identity``, and ``AgentError``.
    """
    JoinToken.parse(join_token)
    state.make()
    with state.locked():
        store = FolderIdentityStore(state.path)
        if not replace_identity:
            _check_unused(state, store)
        # Unpredictable jitter is all that is wanted of it.
        rng = random.Random()  # noqa: S311
        made = await enroll(join_token, server, agent_id, host_facts(), rng=rng, http_proxy=http_proxy)
        identity = made.identity
        if addresses:
            identity = replace(identity, agent_addresses=tuple(addresses))
        # First the root: where it cannot be kept, the host is not enrolled, and can be enrolled again.
        root = _keep_root(state, made.trusted_root, replace_root=replace_identity)
        store.save(identity)
        return Enrolled(identity, write_default_policy(state.policy), root)


def _keep_root(state: StateFolder, content: bytes, *, replace_root: bool) -> RootKept:
    if state.keep_root(content, replace=replace_root):
        return RootKept.WRITTEN
    if not state.trusted_root.exists():
        return RootKept.NONE
    same = not content or state.trusted_root.read_bytes() == content
    return RootKept.LEFT if same else RootKept.ANOTHER


def enrolled(state: StateFolder) -> bool:
    """Return whether ``state`` holds an identity. Raises ``IdentityError`` for one that cannot be read."""
    return FolderIdentityStore(state.path).current() is not None


def _check_unused(state: StateFolder, store: FolderIdentityStore) -> None:
    try:
        current = store.current()
    except IdentityError as error:
        raise StateError(f"{error} with --force") from error
    if current is not None:
        raise StateError(
            f"{state.path}: is the state of agent {current.agent_id!r} already; replace that identity with "
            "--force, or name another folder with --state"
        )


def run_host(state: StateFolder, policy_path: Path, config: AgentConfig) -> None:
    """Run the agent until SIGTERM or SIGINT. Raises ``StateError``, ``PolicyError`` and ``AgentError``."""
    state.check()
    with state.locked():
        state.check_writable(with_room=not state.journal.exists())
        store = FolderIdentityStore(state.path)
        identity = store.current()
        if identity is None:
            raise StateError(f"{state.path}: holds no identity; enrol first with `fleetwright-agent enroll`")
        policy = load_policy(policy_path, uid=own_account().uid)
        # The agent's memory holds its key, and what scripts leave is theirs: neither dumps core.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _log.info(
            "agent starts",
            agent=identity.agent_id,
            version=config.agent_version,
            task_kinds=list(policy.task_kinds),
            policy=str(policy_path),
        )
        config = replace(config, concurrency=policy.limits.concurrent_tasks)
        asyncio.run(_run(state, policy, config, store))
        _log.info("agent left in order")


async def _run(state: StateFolder, policy: Policy, config: AgentConfig, store: FolderIdentityStore) -> None:
    stop = asyncio.Event()
    _stop_on_signals(stop)
    clock = SystemClock()
    served = ServedFiles()
    host = RealHost(policy, state.path, clock.now, served)
    journal = SQLiteJournal(state.journal)
    status = RunningStatus(state.running, journal, clock.now)
    try:
        await _settle(host, journal)
        rng = random.Random()  # noqa: S311 - spreads retries and beats; no secret depends on it
        await Agent(config, host, journal, store, clock, rng, status, served=served).run(stop)
    finally:
        host.close()
        await status.close()
        await journal.close()


async def _settle(host: RealHost, journal: Journal) -> None:
    """Let a result that says only that the process ended say what became of the installation."""
    settled = await host.recover()
    if settled is None:
        return
    attempt_id, result = settled
    if journal.state(attempt_id) is not AttemptState.FINISHED:
        return
    if (await journal.result(attempt_id)).outcome == work_pb2.OUTCOME_INTERRUPTED:
        now = datetime.now(UTC)
        await journal.replace_result(attempt_id, complete(result, now, now))


def _stop_on_signals(stop: asyncio.Event) -> None:
    """Let the first signal ask for an orderly leave, and the second one end the process as usual."""
    loop = asyncio.get_running_loop()

    def leave(number: signal.Signals) -> None:
        _log.info("asked to leave", signal=number.name)
        stop.set()
        for each in (signal.SIGTERM, signal.SIGINT):
            with suppress(ValueError):
                loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)

    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, leave, each)
