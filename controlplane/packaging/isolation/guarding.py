"""The server's side of a guard: starts it, gives it the order, reads the report, leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from controlplane.packaging.isolation.logs import LogLines
from controlplane.packaging.isolation.protocol import (
    REPORT_BYTES,
    Order,
    Report,
    order_line,
    read_report,
)
from controlplane.packaging.isolation.records import FailureKind, IsolationFailed, IsolationSettings, Log
from controlplane.packaging.isolation.scratch import Scratch

Result = TypeVar("Result")

_GRACE_SECONDS = 20.0
"""Beyond the job's own time: for the guard to begin, to end what is left and to report."""
_ENDING_SECONDS = 15.0
_CHUNK = 1 << 16
_NOT_BEGUN = {FailureKind.NOT_ALLOWED, FailureKind.NOT_ISOLATED, FailureKind.NOT_STARTED}
_BYTECODE = ("-B",) if sys.dont_write_bytecode else ()
"""Compiled modules are kept where the server's are: a job begins sooner with them, and cannot write any."""
_ENVIRONMENT = {"LC_ALL": "C.UTF-8"}
_ROOT = Path(__file__).resolve().parents[3]
"""Where our packages stand: ``-I`` finds them there only where they are installed."""
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]);"
    " from controlplane.packaging.isolation.child import main; main()"
)


@dataclass(frozen=True, slots=True)
class Ended:
    """What came back from a guard."""

    report: Report
    answer: bytes
    """Untrusted."""
    lines: tuple[str, ...]


Reading = Callable[[Ended], tuple[Result, bool]]
"""Makes a result of what came back, and says whether the job succeeded; may raise ``IsolationFailed``."""


async def guarded(
    order: Order,
    inputs: Mapping[str, Path],
    outputs: Path | None,
    settings: IsolationSettings,
    log: Log | None,
    read: Reading[Result],
) -> Result:
    """Have an order carried out in a new scratch folder; its path and its user are filled in here.

    Raises ``IsolationFailed`` where the job came to no end of its own. Cancelled: everything is ended first.
    """
    scratch = Scratch.make(settings)
    try:
        await finished(asyncio.to_thread(scratch.fill, inputs))
        ended = await _converse(replace(order, scratch=str(scratch.path), uid=scratch.uid), settings, log)
        report = ended.report
        if report.failure is not None:
            raise IsolationFailed(report.failure, f"the job {_said(report)}", report.facts)
        # A long answer takes its time.
        result, succeeded = await asyncio.to_thread(read, ended)
        if outputs is not None and succeeded:
            await finished(asyncio.to_thread(scratch.take, outputs))
        return result
    finally:
        await finished(_cleared(scratch, log))


async def _cleared(scratch: Scratch, log: Log | None) -> None:
    try:
        await asyncio.to_thread(scratch.remove)
    except OSError as error:  # it takes nothing from the outcome; the sweep of the next start tries again
        if log is not None:
            log(f"{scratch.path} could not be removed: {error.strerror}")


def _said(report: Report) -> str:
    return f"was {'not begun' if report.failure in _NOT_BEGUN else 'ended'}: {report.message}"


async def finished(work: Awaitable[Result]) -> Result:
    """Wait for work that must not be left half done; a cancellation meanwhile is raised after it."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
        except BaseException:  # noqa: BLE001 # raised below, by ``result``
            break
    if cancelled:
        task.exception()
        raise asyncio.CancelledError
    return task.result()


async def _converse(order: Order, settings: IsolationSettings, log: Log | None) -> Ended:
    try:
        line = order_line(order)
    except ValueError as error:
        raise IsolationFailed(FailureKind.NOT_STARTED, str(error)) from None
    process = await _started(order, settings)
    lines = LogLines(order.limits, log)
    reading = asyncio.gather(_read_answer(process, order), _read_log(process, lines))
    try:
        _tell(process, line)
        seconds = order.limits.wall.total_seconds() + _GRACE_SECONDS
        # Read to the end in any case, so that nothing that was started waits for a reader.
        output, _ = await asyncio.wait_for(asyncio.shield(reading), seconds)
    except TimeoutError:
        raise IsolationFailed(FailureKind.TIMEOUT, "the job's guard did not report in time") from None
    finally:
        await finished(_end(process, reading))
        lines.close()
    head, _, answer = output.partition(b"\n")
    try:
        return Ended(read_report(head), answer, tuple(lines.lines))
    except ValueError:
        status = process.returncode
        raise IsolationFailed(
            FailureKind.KILLED, f"the job's guard ended without a report (status {status}); its log says more"
        ) from None


async def _started(order: Order, settings: IsolationSettings) -> asyncio.subprocess.Process:
    interpreter = str(settings.interpreter or sys.executable)
    try:
        return await asyncio.create_subprocess_exec(
            *(interpreter, "-I", "-X", "utf8", *_BYTECODE, "-c", _START, str(_ROOT)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_ENVIRONMENT,
            cwd=order.scratch,
            # Signals of a terminal are for the server, which ends its jobs itself.
            start_new_session=True,
        )
    except OSError as error:
        raise IsolationFailed(
            FailureKind.NOT_STARTED, f"interpreter: {interpreter} cannot be started: {error.strerror}"
        ) from None


def _tell(process: asyncio.subprocess.Process, line: bytes) -> None:
    if process.stdin is not None:
        # Kept open: to the guard, its end is the end of the server.
        process.stdin.write(line)


async def _read_answer(process: asyncio.subprocess.Process, order: Order) -> bytes:
    collected = bytearray()
    while process.stdout is not None and (part := await process.stdout.read(_CHUNK)):
        collected += part
        if len(collected) > order.limits.result_bytes + REPORT_BYTES:
            raise IsolationFailed(FailureKind.TOO_MUCH_OUTPUT, "the job's guard reported without an end")
    return bytes(collected)


async def _read_log(process: asyncio.subprocess.Process, lines: LogLines) -> None:
    while process.stderr is not None and (part := await process.stderr.read(_CHUNK)):
        lines.feed(part)


async def _end(process: asyncio.subprocess.Process, reading: asyncio.Future[tuple[bytes, None]]) -> None:
    """Let go of the guard, which ends all below it and then itself; kill it where it does not."""
    if process.stdin is not None:
        process.stdin.close()
    await asyncio.wait({reading}, timeout=_ENDING_SECONDS)
    if not reading.done():
        reading.cancel()
    try:
        await asyncio.wait_for(process.wait(), _ENDING_SECONDS)
    except TimeoutError:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    with suppress(asyncio.CancelledError):
        reading.exception()
