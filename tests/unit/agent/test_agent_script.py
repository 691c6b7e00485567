"""Scripts, against the real /bin/sh."""

from __future__ import annotations

import asyncio
import errno
import os
import pwd
from datetime import timedelta
from pathlib import Path

import pytest
from fleetwright.v1 import work_pb2

from agent_sim.agent.rules import RefusedError, ScriptRules
from agent_sim.agent.run_folder import clear_leftovers
from agent_sim.agent.script import ScriptRunner
from tests.unit.agent.reporting import Recorder

SUCCEEDED, FAILED, TIMED_OUT = (
    work_pb2.OUTCOME_SUCCEEDED,
    work_pb2.OUTCOME_FAILED,
    work_pb2.OUTCOME_TIMED_OUT,
)

# Says its process id on standard output and outlives SIGTERM, so only a SIGKILL that reaches it ends it.
STUBBORN = 'trap "" TERM; echo $$; while :; do sleep 60; done'


def rules(**changes: object) -> ScriptRules:
    fields: dict[str, object] = {
        "interpreters": {"sh": "/bin/sh", "gone": "/nonexistent/sh"},
        "users": {"@agent", "nobody", "no-such-user"},
        "denied_environment": ("LD_*",),
        "max_time": timedelta(hours=1),
        "max_output_bytes": 16 << 20,
    }
    return ScriptRules(**{**fields, **changes})  # type: ignore[arg-type] # the names are spelt above


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def runner(work: Path) -> ScriptRunner:
    return ScriptRunner(rules(), work, grace=timedelta(milliseconds=50))


def sh(body: str, **fields: object) -> work_pb2.ScriptSpec:
    return work_pb2.ScriptSpec(interpreter="sh", body=body, **fields)  # type: ignore[arg-type] # field names


def limited(body: str, seconds: float) -> work_pb2.ScriptSpec:
    spec = sh(body)
    spec.time_limit.FromTimedelta(timedelta(seconds=seconds))
    return spec


def empty(folder: Path) -> bool:
    return not any(folder.iterdir())


async def ended(pid: int) -> None:
    """Wait until the kernel says that ``pid`` has ended; it may not be a child of ours."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    loop.add_reader(handle, done.set)
    try:
        async with asyncio.timeout(20):
            await done.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


async def test_a_script_that_ends_well_succeeds_with_its_output(runner: ScriptRunner, work: Path) -> None:
    recorder = Recorder()
    spec = sh(
        'printf "out:%s:%s" "$1" "$GIVEN"; printf err >&2', arguments=["a b"], environment={"GIVEN": "x"}
    )
    result = await runner.run(spec, recorder)
    assert (result.outcome, result.reason) == (SUCCEEDED, "")
    assert result.script.exit_status == 0
    assert result.script.HasField("exit_status")
    assert (recorder.stdout, recorder.stderr) == (b"out:a b:x", b"err")
    assert (result.stdout_bytes, result.stderr_bytes, result.discarded_bytes) == (9, 3, 0)
    assert empty(work)


async def test_another_exit_status_fails_with_it(runner: ScriptRunner) -> None:
    result = await runner.run(sh("exit 3"), Recorder())
    assert (result.outcome, result.reason, result.script.exit_status) == (FAILED, "exit status 3", 3)


async def test_a_signal_fails_without_an_exit_status(runner: ScriptRunner) -> None:
    result = await runner.run(sh("kill -9 $$"), Recorder())
    assert (result.outcome, result.reason) == (FAILED, "ended by signal 9 (SIGKILL)")
    assert not result.script.HasField("exit_status")
    assert result.script.signal == 9


async def test_the_environment_is_minimal(runner: ScriptRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_AGENT", "x")
    recorder = Recorder()
    await runner.run(sh("env | cut -d= -f1 | sort | tr '\\n' ' '"), recorder)
    names = set(recorder.stdout.decode().split())
    shells_own = {"PWD", "SHLVL", "_", "OLDPWD"}
    assert names - shells_own == {
        "FLEETWRIGHT_RUN_ID", "HOME", "LANG", "LOGNAME", "PATH", "TMPDIR", "USER",
    }  # fmt: skip


async def test_input_is_empty_and_files_are_private_and_removed(runner: ScriptRunner, work: Path) -> None:
    recorder = Recorder()
    result = await runner.run(
        sh('cat; umask; stat -c %a "$0" .; pwd; touch left-behind; mkdir sub'), recorder
    )
    assert result.outcome == SUCCEEDED
    umask, body_mode, folder_mode, folder = recorder.stdout.decode().split()
    assert (umask, body_mode, folder_mode) == ("0077", "600", "700")
    assert Path(folder).parent.parent == work
    assert empty(work)


async def test_output_over_the_limit_is_counted_and_does_not_block(runner: ScriptRunner) -> None:
    recorder = Recorder()
    result = await runner.run(sh("head -c 3000000 /dev/zero", output_limit=1000), recorder)
    assert result.outcome == SUCCEEDED
    assert len(recorder.stdout) == result.stdout_bytes == 1000
    assert result.discarded_bytes == 2_999_000


async def test_the_limit_counts_both_outputs_together(runner: ScriptRunner) -> None:
    recorder = Recorder()
    result = await runner.run(sh("printf 12345; printf 67890 >&2", output_limit=7), recorder)
    assert result.stdout_bytes + result.stderr_bytes == 7
    assert result.discarded_bytes == 3


async def test_the_time_limit_ends_what_outlives_sigterm_and_its_children(runner: ScriptRunner) -> None:
    recorder = Recorder()
    result = await runner.run(limited(f"sh -c '{STUBBORN}' & {STUBBORN}", 2), recorder)
    assert (result.outcome, result.reason) == (TIMED_OUT, "time limit of 2 s reached")
    pids = recorder.stdout.split()
    assert len(pids) == 2
    for pid in pids:
        await ended(int(pid))


async def test_a_script_that_cannot_be_ended_holds_nothing_up(
    runner: ScriptRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_reach(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "killpg", out_of_reach)
    monkeypatch.setattr("agent_sim.agent.process.kill_marked", lambda run_id: 0)
    monkeypatch.setattr("agent_sim.agent.process._KILL_WAIT", timedelta(milliseconds=50))
    recorder = Recorder()
    result = await runner.run(limited("echo $$; exec sleep 60", 1), recorder)
    assert (result.outcome, result.script.HasField("exit_status")) == (TIMED_OUT, False)
    assert result.reason == "time limit of 1 s reached; the script could not be ended and may still run"
    pid = int(recorder.stdout)
    os.kill(pid, 9)
    await ended(pid)


async def test_the_time_limit_also_finds_what_left_the_process_group(runner: ScriptRunner) -> None:
    recorder = Recorder()
    result = await runner.run(limited("setsid sh -c 'echo $$; exec sleep 60' & sleep 60", 2), recorder)
    assert result.outcome == TIMED_OUT
    await ended(int(recorder.stdout))


async def test_a_child_in_the_background_does_not_outlive_a_normal_end(runner: ScriptRunner) -> None:
    recorder = Recorder()
    result = await runner.run(sh("sleep 60 & echo $!"), recorder)
    assert result.outcome == SUCCEEDED
    await ended(int(recorder.stdout))


async def test_a_daemon_that_left_on_purpose_holds_nothing_up_and_lives_on(runner: ScriptRunner) -> None:
    recorder = Recorder()
    # Left its session, and keeps the output open: the usual way to hang whoever waits for its end.
    body = "setsid sh -c 'echo $$ > pid; exec sleep 60' & while ! [ -s pid ]; do :; done; cat pid"
    result = await runner.run(sh(body), recorder)
    assert result.outcome == SUCCEEDED
    os.kill(int(recorder.stdout), 9)


async def test_cancelling_ends_the_script_and_removes_its_folder(runner: ScriptRunner, work: Path) -> None:
    recorder = Recorder()
    task = asyncio.create_task(runner.run(sh(STUBBORN), recorder))
    await recorder.wrote.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await ended(int(recorder.stdout))
    assert empty(work)


async def test_a_reporter_that_fails_ends_the_script(runner: ScriptRunner, work: Path) -> None:
    class Broken(Recorder):
        async def output(self, stream: work_pb2.OutputStream.ValueType, data: bytes) -> None:
            raise RuntimeError("journal")

    with pytest.raises(RuntimeError, match="journal"):
        await runner.run(sh("echo x; sleep 60"), Broken())
    assert empty(work)


async def test_a_script_whose_end_could_not_be_seen_is_not_left_running(
    runner: ScriptRunner, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    def refuse(pid: int) -> int:
        started.append(pid)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        await runner.run(sh("sleep 60"), Recorder())
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)
    assert empty(work)


async def test_output_is_handed_over_while_the_script_runs(runner: ScriptRunner, tmp_path: Path) -> None:
    recorder = Recorder()
    go = tmp_path / "go"
    body = f"echo first; while ! [ -e {go} ]; do sleep 0.01; done; echo second"
    task = asyncio.create_task(runner.run(sh(body), recorder))
    await recorder.wrote.wait()
    assert recorder.stdout == b"first\n"
    go.touch()
    assert (await task).outcome == SUCCEEDED
    assert recorder.stdout == b"first\nsecond\n"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (work_pb2.ScriptSpec(interpreter="perl", body="x"), r"script\.interpreters: 'perl'"),
        (work_pb2.ScriptSpec(interpreter="gone", body="x"), r"script\.interpreters\.gone: '/nonexistent/sh'"),
        (work_pb2.ScriptSpec(interpreter="sh", body="x", user="daemon"), r"script\.users: 'daemon'"),
    ],
)
async def test_what_the_policy_does_not_allow_is_refused(
    runner: ScriptRunner, work: Path, spec: work_pb2.ScriptSpec, words: str
) -> None:
    with pytest.raises(RefusedError, match=words):
        await runner.run(spec, Recorder())
    assert empty(work)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run as another user")
class TestAsAnotherUser:
    async def test_it_has_that_users_identity_and_a_folder_to_work_in(
        self, runner: ScriptRunner, work: Path
    ) -> None:
        recorder = Recorder()
        body = (
            'id -un; id -G; echo x > file && cat file; test -w "$0" || echo fixed; cd "$TMPDIR" && echo there'
        )
        result = await runner.run(sh(body, user="nobody"), recorder)
        account = pwd.getpwnam("nobody")
        groups = " ".join(str(group) for group in os.getgrouplist("nobody", account.pw_gid))
        assert recorder.stdout.decode().splitlines() == ["nobody", groups, "x", "fixed", "there"]
        assert result.outcome == SUCCEEDED
        assert empty(work)

    async def test_a_user_that_the_host_does_not_have_is_refused(self, runner: ScriptRunner) -> None:
        with pytest.raises(RefusedError, match="no user 'no-such-user'"):
            await runner.run(sh("true", user="no-such-user"), Recorder())


async def test_what_a_killed_agent_left_running_is_ended_at_the_next_start(work: Path) -> None:
    left = work / "0123456789abcdef"
    left.mkdir()
    process = await asyncio.create_subprocess_exec(
        "/bin/sleep", "60", env={"FLEETWRIGHT_RUN_ID": left.name}, start_new_session=True
    )
    assert await asyncio.to_thread(clear_leftovers, work) == 1
    assert await process.wait() == -9
    assert empty(work)
