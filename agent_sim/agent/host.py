"""The real host: the Host port over this machine, bounded by its owner's policy."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from fleetwright.v1 import agent_service_pb2, work_pb2

from agent_sim.agent.inventory import host_facts, take_inventory
from agent_sim.agent.logs import LogReader
from agent_sim.agent.policy import Policy
from agent_sim.agent.rules import RefusedError, check_kind
from agent_sim.agent.run_folder import clear_leftovers
from agent_sim.agent.script import ScriptRunner
from agent_sim.agent.telemetry import HostTelemetry
from agent_sim.host import AttemptReporter, ServerFiles

if TYPE_CHECKING:
    from agent_sim.agent.installing.task import InstallTask

# AttemptResult.reason in the contract.
_REASON_BYTES = 2048
_DIGEST_FILE = "inventory.digest"
_DIGEST_CHARACTERS = 64

_log = structlog.get_logger(__name__)

_Work = Callable[[agent_service_pb2.Assignment, AttemptReporter], Awaitable[work_pb2.AttemptResult]]


class RealHost:
    """Implements ``agent_sim.host.Host`` on the machine that it runs on.

    ``state`` is the agent's own folder: scripts run below it, and the digest of
    the last inventory is kept in it. ``clock`` returns aware UTC times.
    """

    def __init__(
        self,
        policy: Policy,
        state: Path,
        clock: Callable[[], datetime],
        files: ServerFiles | None = None,
    ) -> None:
        """Prepare the work folder and end what an agent that was killed left running.

        ``files`` is where packages come from; without it none is installed, whatever the policy says. Raises
        ``OSError`` where the work folder cannot be made. Blocks: make it before the event loop is busy. Where
        the policy allows packages it belongs to the event loop that it is made on.
        """
        # A script's working folder is another one than ours, so a relative path would not find its body.
        work = state.absolute() / "work"
        work.mkdir(mode=0o700, exist_ok=True)
        if leftovers := clear_leftovers(work):
            _log.warning("scripts of a run that was cut short were ended", count=leftovers)
        self._policy = policy
        self._clock = clock
        self._digest_path = state / _DIGEST_FILE
        self._scripts = ScriptRunner(policy.script_rules(), work)
        self._logs = LogReader(
            policy.logs.paths, max_bytes=policy.limits.log_bytes, scan_bytes=policy.limits.log_scan_bytes
        )
        self._telemetry = HostTelemetry(clock)
        # One thread: a file system that hangs holds up the measuring, and nothing else.
        self._measuring = ThreadPoolExecutor(max_workers=1, thread_name_prefix="measuring")
        self._sampling = False
        self._kinds: dict[str, _Work] = {
            "inventory": self._inventory,
            "script": lambda assignment, reporter: self._scripts.run(assignment.spec.script, reporter),
            "logs": lambda assignment, reporter: self._logs.run(assignment.spec.logs, reporter),
            "echo": self._echo,
        }
        self._installing = _installing(policy, state.absolute(), files, clock)
        if self._installing is not None:
            self._kinds["install"] = self._installing.run

    def close(self) -> None:
        """Let the measuring thread go. Work that runs is the engine's to cancel."""
        self._measuring.shutdown(wait=False, cancel_futures=True)
        if self._installing is not None:
            self._installing.close()

    async def recover(self) -> tuple[str, work_pb2.AttemptResult] | None:
        """Finish, or take back, an installation that an agent that was killed left half done.

        Returns the attempt of the last installation and how it truly ended, or None.
        """
        return await self._installing.recover() if self._installing is not None else None

    def facts(self) -> work_pb2.HostFacts:
        """Return what identifies the operating system and the machine."""
        return host_facts()

    def task_kinds(self) -> Sequence[str]:
        """Return the kinds of work that the policy allows, sorted."""
        return sorted(set(self._policy.task_kinds))

    def inventory_digest(self) -> str:
        """Return the digest of the last inventory, also of one taken before a restart, or ""."""
        try:
            return self._digest_path.read_text("ascii")[:_DIGEST_CHARACTERS].strip()
        except (OSError, UnicodeDecodeError):
            return ""

    async def sample(self) -> Sequence[work_pb2.TelemetryPoint]:
        """Measure once; returns nothing while an earlier sample still waits for a file system."""
        if self._sampling:
            return []
        self._sampling = True
        return await asyncio.get_running_loop().run_in_executor(self._measuring, self._measure)

    def _measure(self) -> list[work_pb2.TelemetryPoint]:
        try:
            return self._telemetry.measure()
        finally:
            self._sampling = False

    async def run(
        self, assignment: agent_service_pb2.Assignment, reporter: AttemptReporter
    ) -> work_pb2.AttemptResult:
        """Do the work of one attempt; see the port."""
        kind = assignment.spec.WhichOneof("kind")
        started, at = self._clock(), time.monotonic()
        try:
            # Not set up unless the policy lists it; a refusal names that entry, not a gap in the agent.
            known = {*self._kinds, *({"install"} - set(self._policy.task_kinds))}
            check_kind(kind, known, self._policy.task_kinds)
            result = await self._kinds[kind or ""](assignment, reporter)
            if result.outcome != work_pb2.OUTCOME_REFUSED:
                result.start_time.FromDatetime(started)
        except RefusedError as refusal:
            result = _failure(work_pb2.OUTCOME_REFUSED, str(refusal))
        except OSError as error:
            result = _failure(work_pb2.OUTCOME_FAILED, _words(kind, error))
            result.start_time.FromDatetime(started)
        # Its length by the clock that does not jump.
        result.end_time.FromDatetime(started + timedelta(seconds=time.monotonic() - at))
        _log.info(
            "work ended",
            attempt=assignment.attempt_id,
            task=assignment.task,
            kind=kind,
            outcome=work_pb2.Outcome.Name(result.outcome),
        )
        return result

    async def _inventory(
        self, assignment: agent_service_pb2.Assignment, reporter: AttemptReporter
    ) -> work_pb2.AttemptResult:
        inventory = await take_inventory(assignment.spec.inventory.include_packages, reporter.progress)
        await asyncio.to_thread(self._keep_digest, inventory.digest)
        return work_pb2.AttemptResult(outcome=work_pb2.OUTCOME_SUCCEEDED, inventory=inventory)

    def _keep_digest(self, digest: str) -> None:
        beside = self._digest_path.with_suffix(".new")
        beside.write_text(digest, "ascii")
        os.replace(beside, self._digest_path)

    async def _echo(
        self, assignment: agent_service_pb2.Assignment, reporter: AttemptReporter
    ) -> work_pb2.AttemptResult:
        echo = assignment.spec.echo
        delay = echo.delay.ToTimedelta().total_seconds()
        if delay > 0:
            await asyncio.sleep(delay)
        return work_pb2.AttemptResult(
            outcome=work_pb2.OUTCOME_SUCCEEDED, echo=work_pb2.EchoResult(payload=echo.payload)
        )


def _installing(
    policy: Policy, state: Path, files: ServerFiles | None, clock: Callable[[], datetime]
) -> InstallTask | None:
    rules = policy.install_rules()
    if rules is None or files is None:
        return None
    # Only now: the verifier's libraries take 11 MB, which a host without packages does not need.
    from agent_sim.agent.installing.task import InstallTask

    return InstallTask(rules, state, files, clock)


def _failure(outcome: work_pb2.Outcome.ValueType, reason: str) -> work_pb2.AttemptResult:
    short = reason.encode("utf-8", "replace")[:_REASON_BYTES].decode("utf-8", "ignore")
    return work_pb2.AttemptResult(outcome=outcome, reason=short)


def _words(kind: str | None, error: OSError) -> str:
    """Say what the operating system refused, and of which file."""
    what = error.strerror or type(error).__name__
    return f"{kind}: {error.filename}: {what}" if error.filename else f"{kind}: {what}"
