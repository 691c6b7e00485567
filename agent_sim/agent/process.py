"""One process group: started, its output drained, ended with all that it started.

A group is signalled only while its leader has not been reaped: until then the
kernel gives its number to no one else, so a signal cannot hit a stranger. Hence
the pidfd, which tells of the end without reaping (pidfd_open(2), Linux 5.3).
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import psutil

# Names the run to which a process belongs. It is inherited, and so finds what left the process group.
RUN_VARIABLE = "FLEETWRIGHT_RUN_ID"

_READ_BYTES = 65536
# The most that a pipe holds (fcntl(2), F_SETPIPE_SZ without privilege): what is left when a run has ended.
_PIPE_BYTES = 1 << 20
# How long SIGKILL may take to end a leader. One of another user (sudo) may be out of our reach for ever.
_KILL_WAIT = timedelta(seconds=10)
# Processes that fork while they are being found are found in the next round.
_KILL_ROUNDS = 8

Result = TypeVar("Result")
OutputSink = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Identity:
    """The user and groups that a process gets; only root may give one."""

    uid: int
    gid: int
    groups: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Command:
    """What to start, and where. ``identity`` None keeps the agent's own."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    working: Path
    run_id: str
    identity: Identity | None


@dataclass(frozen=True, slots=True)
class ProcessEnd:
    """How the leader of a group ended. ``exit_status`` is None where ``signal``, or nothing, ended it."""

    exit_status: int | None
    signal: int
    timed_out: bool
    still_runs: bool = False


async def run_process(
    command: Command, stdout: OutputSink, stderr: OutputSink, *, time_limit: timedelta, grace: timedelta
) -> ProcessEnd:
    """Run ``command`` to its end and hand over its output while it runs.

    A process waits while a sink does: its pipe is not read meanwhile. After
    ``time_limit``, on cancellation, and when a sink fails, the group gets SIGTERM,
    and SIGKILL when its leader has ended, at the latest after ``grace``; so does
    every process that left the group but not the run. After a normal end only the
    rest of the group is killed: a daemon that left it on purpose lives on. A leader
    that not even SIGKILL ends is left behind, so that whoever waits here goes on.
    Raises ``OSError`` where it cannot be started, and whatever a sink raises.
    """
    with _Pipe() as out, _Pipe() as err:
        process = _start(command, out, err)
        run = _Run(process, grace, command.run_id)
        pumps = [run.pump(out.reading, stdout), run.pump(err.reading, stderr)]
        try:
            timed_out = await run.watch(time_limit)
            await asyncio.gather(*pumps)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
    status = process.returncode
    if status is None:
        return ProcessEnd(None, 0, timed_out, still_runs=True)
    return ProcessEnd(status if status >= 0 else None, max(0, -status), timed_out)


def kill_marked(run_id: str) -> int:
    """Kill every process of run ``run_id``, also those in groups of their own; return how many.

    Reads the environment of all processes: not for the event loop's thread.
    """
    killed = 0
    for _ in range(_KILL_ROUNDS):
        found = 0
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.environ().get(RUN_VARIABLE) == run_id:
                    process.kill()
                    found += 1
        killed += found
        if not found:
            break
    return killed


async def uninterrupted(work: Coroutine[Any, Any, Result]) -> Result:
    """Finish ``work`` although the caller is cancelled meanwhile, and only then let the cancellation out."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    return task.result()


class _Pipe:
    """A pipe whose reading end does not block. Both ends close with the context."""

    def __enter__(self) -> _Pipe:
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)
        self._open = [self.reading, self.writing]
        return self

    def close_writing(self) -> None:
        """Leave the writing end to the process alone, so that its end is the end of the output."""
        self._open.remove(self.writing)
        os.close(self.writing)

    def __exit__(self, *_: object) -> None:
        for handle in self._open:
            os.close(handle)


def _start(command: Command, out: _Pipe, err: _Pipe) -> subprocess.Popen[bytes]:
    identity = command.identity
    switch: dict[str, Any] = {}
    if identity is not None:
        switch = {"user": identity.uid, "group": identity.gid, "extra_groups": identity.groups}
    process = subprocess.Popen(
        list(command.arguments),
        stdin=subprocess.DEVNULL,
        stdout=out.writing,
        stderr=err.writing,
        cwd=command.working,
        env={**command.environment, RUN_VARIABLE: command.run_id},
        start_new_session=True,
        umask=0o077,
        **switch,
    )
    out.close_writing()
    err.close_writing()
    return process


class _Run:
    """A group from its start to its last process."""

    def __init__(self, process: subprocess.Popen[bytes], grace: timedelta, run_id: str) -> None:
        self._process = process
        self._grace = grace
        self._run_id = run_id
        loop = asyncio.get_running_loop()
        self._leader_ended: asyncio.Future[None] = loop.create_future()
        self._group_ended: asyncio.Future[None] = loop.create_future()
        self._sink_failed: asyncio.Future[None] = loop.create_future()

    def pump(self, handle: int, sink: OutputSink) -> asyncio.Task[None]:
        """Hand what comes out of ``handle`` to ``sink``, until no process of the group can write."""
        task = asyncio.create_task(self._drain(handle, sink))
        task.add_done_callback(self._pump_done)
        return task

    def _pump_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None and not self._sink_failed.done():
            self._sink_failed.set_result(None)

    async def watch(self, time_limit: timedelta) -> bool:
        """Wait for the end of the leader, end the rest, reap it; return whether the time was over."""
        loop = asyncio.get_running_loop()
        try:
            pidfd = os.pidfd_open(self._process.pid)
        except (
            OSError
        ):  # No such call before Linux 5.3, or too many open files: not without a way to its end.
            self._signal(signal.SIGKILL)
            self._process.wait()
            raise
        loop.add_reader(pidfd, _resolve, self._leader_ended)
        try:
            try:
                await asyncio.wait(
                    (self._leader_ended, self._sink_failed),
                    timeout=time_limit.total_seconds(),
                    return_when=asyncio.FIRST_COMPLETED,
                )
            finally:
                ended_itself = self._leader_ended.done()
                await uninterrupted(self._end(by_force=not ended_itself))
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)
        return not ended_itself and not self._sink_failed.done()

    async def _end(self, *, by_force: bool) -> None:
        if by_force:
            self._signal(signal.SIGTERM)
            await asyncio.wait((self._leader_ended,), timeout=self._grace.total_seconds())
        self._signal(signal.SIGKILL)
        if by_force:
            await asyncio.to_thread(kill_marked, self._run_id)
        await asyncio.wait((self._leader_ended,), timeout=_KILL_WAIT.total_seconds())
        if self._leader_ended.done():
            self._process.wait()
        else:
            # It is reaped whenever it does end; a daemon thread does not hold up our own end.
            threading.Thread(target=self._process.wait, name="reaping", daemon=True).start()
        self._group_ended.set_result(None)

    def _signal(self, number: signal.Signals) -> None:
        # ESRCH: nobody is left. EPERM: what is left took another user's identity (sudo), out of our reach.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    async def _drain(self, handle: int, sink: OutputSink) -> None:
        left = _PIPE_BYTES
        while left > 0:
            over = self._group_ended.done()
            try:
                data = os.read(handle, _READ_BYTES)
            except BlockingIOError:
                if over:
                    return  # A write is in the pipe when it returns, so nothing more of the group can come.
                await self._readable(handle)
                continue
            if not data:
                return
            left -= len(data) if over else 0
            await sink(data)
            await asyncio.sleep(0)  # A flood of output that is thrown away must not starve the loop.

    async def _readable(self, handle: int) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(handle, _resolve, ready)
        try:
            await asyncio.wait((ready, self._group_ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            loop.remove_reader(handle)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
