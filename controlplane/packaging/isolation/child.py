"""The guard: started by the server for each job, reads no untrusted byte, and outlives all that does.

It keeps the time, counts what the scratch folder holds, and when the job is over, or the server, kills every
process below it: by the death of the process namespace where there is one, and one by one in any case.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from controlplane.packaging.isolation import trees, watching
from controlplane.packaging.isolation.calling import write
from controlplane.packaging.isolation.confinement import kernel, namespaces
from controlplane.packaging.isolation.executables import Refused, open_pinned
from controlplane.packaging.isolation.keeping import keep
from controlplane.packaging.isolation.processes import end_descendants
from controlplane.packaging.isolation.protocol import ORDER_BYTES, Order, Report, read_order, report_line
from controlplane.packaging.isolation.records import FailureKind, Usage

_LOOK_SECONDS = 1.0


def main() -> None:
    """Carry out the order on standard input, and report on standard output."""
    os.umask(0o077)
    line = _line()
    if line is None:
        sys.exit(2)
    report, answer = carry_out(read_order(line))
    write(1, report_line(report))
    write(1, answer)


def _line() -> bytes | None:
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(0, 1 << 16)
        if not part or len(line) > ORDER_BYTES:
            return None
        line += part
    return line


def carry_out(order: Order) -> tuple[Report, bytes]:
    """Have the job done by descendants of this process, and return how it ended and what it answered."""
    began = time.monotonic()
    try:
        program = open_pinned(Path(order.program), order.sha256) if order.program else -1
    except Refused as error:
        return _refused(FailureKind.NOT_ALLOWED, str(error)), b""
    pipes = watching.Pipes.make()
    with suppress(OSError):  # where it fails, what the job left alone ends with the process namespace, or not
        kernel.adopt_orphans()
    reasons = namespaces.enter_for_descendants()
    try:
        keeper = os.fork()
    except OSError as error:
        return _refused(FailureKind.NOT_STARTED, f"no process could be made: {error.strerror}"), b""
    if keeper == 0:
        keep(order, pipes, program, reasons)
    pipes.close_inner()
    watch = watching.Watch(pipes, order.limits, began + order.limits.wall.total_seconds())
    return _watched(order, watch, began)


def _watched(order: Order, watch: watching.Watch, began: float) -> tuple[Report, bytes]:
    scratch = Path(order.scratch)
    look = _LOOK_SECONDS
    while watch.wait(look):
        before = time.monotonic()
        watch.hold_against(trees.measure(scratch, order.limits.scratch_files, settled=False))
        # A large folder is looked at less often: looking is to cost a twentieth at most.
        look = max(_LOOK_SECONDS, 20 * (time.monotonic() - before))
    left = end_descendants()
    if watch.abandoned:
        trees.remove(scratch)
        os._exit(0)
    watch.drain()
    watch.hold_against(trees.measure(scratch, order.limits.scratch_files, settled=True))
    report = watch.report(timedelta(seconds=time.monotonic() - began))
    if left:
        report = _refused(FailureKind.KILLED, f"{left} processes of the job could not be ended")
    return report, watch.answer if report.failure is None else b""


def _refused(kind: FailureKind, message: str) -> Report:
    return Report((), Usage(timedelta(), timedelta(), 0), 0, kind, message)


if __name__ == "__main__":
    main()
