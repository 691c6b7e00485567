"""Scripts: what the policy grants is run as a process group of its own, and ended as one."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from fleetwright.v1 import work_pb2

from agent_sim.agent.process import Command, Identity, ProcessEnd, run_process, uninterrupted
from agent_sim.agent.rules import RefusedError, ScriptGrant, ScriptRequest, ScriptRules, grant_script
from agent_sim.agent.run_folder import Account, RunFolder, find_account, own_account, plan_run_folder
from agent_sim.host import AttemptReporter

# Between SIGTERM and SIGKILL.
STOP_GRACE = timedelta(seconds=5)

# Not the agent's own PATH: what a script finds must not depend on who started the agent.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(slots=True)
class _OutputBudget:
    """What may still be sent of both outputs together; the rest is counted and thrown away."""

    left: int
    sent: dict[work_pb2.OutputStream.ValueType, int] = field(default_factory=dict)
    discarded: int = 0

    @property
    def seen(self) -> int:
        """Bytes that came, sent or thrown away."""
        return sum(self.sent.values()) + self.discarded

    def take(self, stream: work_pb2.OutputStream.ValueType, data: bytes) -> bytes:
        taken = data[: self.left]
        self.left -= len(taken)
        self.sent[stream] = self.sent.get(stream, 0) + len(taken)
        self.discarded += len(data) - len(taken)
        return taken


class ScriptRunner:
    """Runs scripts within ``rules``; their bodies and folders lie under ``work``."""

    def __init__(self, rules: ScriptRules, work: Path, *, grace: timedelta = STOP_GRACE) -> None:
        self._rules = rules
        self._work = work
        self._grace = grace
        self._own = own_account()

    async def run(self, spec: work_pb2.ScriptSpec, reporter: AttemptReporter) -> work_pb2.AttemptResult:
        """Run one script and return how it ended, without its times.

        Raises ``RefusedError`` where the policy does not allow it, and ``OSError``
        where its folder cannot be made or its interpreter cannot be started.
        """
        grant = grant_script(
            self._rules, _request(spec), own_user=self._own.name, may_switch_user=os.geteuid() == 0
        )
        account = await self._account(grant)
        _check_interpreter(spec.interpreter, grant.interpreter_path)
        folder = plan_run_folder(self._work, account)
        try:
            await uninterrupted(asyncio.to_thread(folder.make, spec.body.encode()))
            return await self._run_in(folder, grant, spec, reporter)
        finally:
            await uninterrupted(asyncio.to_thread(folder.remove))

    async def _account(self, grant: ScriptGrant) -> Account | None:
        if grant.user is None:
            return None
        account = await asyncio.to_thread(find_account, grant.user)
        if account is None:
            raise RefusedError(f"script.user: this host has no user {grant.user!r}")
        return account

    async def _run_in(
        self,
        folder: RunFolder,
        grant: ScriptGrant,
        spec: work_pb2.ScriptSpec,
        reporter: AttemptReporter,
    ) -> work_pb2.AttemptResult:
        account = folder.account
        budget = _OutputBudget(grant.output_limit)

        async def forward(stream: work_pb2.OutputStream.ValueType, data: bytes) -> None:
            taken = budget.take(stream, data)
            # How much of its work a script has done is known to nobody: percent stays 0. The reporter
            # sends one a second at most.
            reporter.progress(0, f"{budget.seen} bytes of output")
            if taken:
                await reporter.output(stream, taken)

        command = Command(
            arguments=[grant.interpreter_path, str(folder.script), *spec.arguments],
            environment=_environment(account or self._own, folder, spec.environment),
            working=folder.working,
            run_id=folder.run_id,
            identity=None if account is None else Identity(account.uid, account.gid, account.groups),
        )
        end = await run_process(
            command,
            lambda data: forward(work_pb2.OUTPUT_STREAM_STDOUT, data),
            lambda data: forward(work_pb2.OUTPUT_STREAM_STDERR, data),
            time_limit=grant.time_limit,
            grace=self._grace,
        )
        return _result(end, grant, budget)


def _request(spec: work_pb2.ScriptSpec) -> ScriptRequest:
    return ScriptRequest(
        interpreter=spec.interpreter,
        arguments=list(spec.arguments),
        environment=dict(spec.environment),
        user=spec.user,
        time_limit=spec.time_limit.ToTimedelta() if spec.HasField("time_limit") else None,
        output_limit=spec.output_limit,
    )


def _check_interpreter(name: str, path: str) -> None:
    if not (Path(path).is_file() and os.access(path, os.X_OK)):
        raise RefusedError(
            f"policy script.interpreters.{name}: {path!r} is not an executable file on this host"
        )


def _environment(account: Account, folder: RunFolder, given: Mapping[str, str]) -> dict[str, str]:
    minimal = {
        "PATH": _PATH,
        "HOME": account.home,
        "USER": account.name,
        "LOGNAME": account.name,
        "LANG": "C.UTF-8",
        # Temporary files go with the folder when the script has ended.
        "TMPDIR": str(folder.working),
    }
    return {**minimal, **given}


def _result(end: ProcessEnd, grant: ScriptGrant, budget: _OutputBudget) -> work_pb2.AttemptResult:
    outcome, reason = _outcome(end, grant)
    return work_pb2.AttemptResult(
        outcome=outcome,
        reason=reason,
        stdout_bytes=budget.sent.get(work_pb2.OUTPUT_STREAM_STDOUT, 0),
        stderr_bytes=budget.sent.get(work_pb2.OUTPUT_STREAM_STDERR, 0),
        discarded_bytes=budget.discarded,
        script=work_pb2.ScriptResult(exit_status=end.exit_status, signal=end.signal),
    )


def _outcome(end: ProcessEnd, grant: ScriptGrant) -> tuple[work_pb2.Outcome.ValueType, str]:
    if end.timed_out:
        reason = f"time limit of {grant.time_limit.total_seconds():g} s reached"
        left = "; the script could not be ended and may still run" if end.still_runs else ""
        return work_pb2.OUTCOME_TIMED_OUT, reason + left
    if end.exit_status == 0:
        return work_pb2.OUTCOME_SUCCEEDED, ""
    if end.exit_status is not None:
        return work_pb2.OUTCOME_FAILED, f"exit status {end.exit_status}"
    return work_pb2.OUTCOME_FAILED, f"ended by signal {_signal_name(end.signal)}"


def _signal_name(number: int) -> str:
    try:
        return f"{number} ({signal.Signals(number).name})"
    except ValueError:
        return str(number)
