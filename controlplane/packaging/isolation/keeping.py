"""The keeper, process 1 of the job's process namespace, and the job below it.

The keeper is apart from the job because signals of its own cannot end a process 1, and a limit on processor
time is one. It waits, tells the guard how the job ended, and by ending takes along whatever is left.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from controlplane.packaging.isolation.calling import answer, write
from controlplane.packaging.isolation.confinement import applying, kernel, observing
from controlplane.packaging.isolation.confinement.namespaces import Reasons
from controlplane.packaging.isolation.confinement.own_root import TEMPORARY
from controlplane.packaging.isolation.protocol import Order, fact_rows
from controlplane.packaging.isolation.records import FailureKind
from controlplane.packaging.isolation.watching import Pipes

_BROKEN = 70
"""EX_SOFTWARE of sysexits.h."""
_OURS = ("controlplane", "fleetwright")


def keep(order: Order, pipes: Pipes, program: int, reasons: Reasons) -> NoReturn:
    """Start the job, wait for it, and say how it ended."""
    try:
        kernel.die_with_parent(signal.SIGKILL)
        # A signal to "my whole process group" must not reach the guard, nor that of the job the keeper.
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        # What a job prints is for the log. The report is the guard's alone.
        os.dup2(2, 1)
        job = os.fork()
        if job == 0:
            _work(order, pipes, program, reasons)
        _close_all_but({0, 1, 2, pipes.end[1]})
        write(pipes.end[1], json.dumps(_ended(job)).encode())
    finally:
        os._exit(0)


def _ended(job: int) -> Mapping[str, int | float]:
    while True:
        pid, status, usage = os.wait4(-1, 0)
        if pid == job:
            return {
                "status": os.waitstatus_to_exitcode(status),
                "cpu": usage.ru_utime + usage.ru_stime,
                "memory": usage.ru_maxrss * 1024,
            }


def _work(order: Order, pipes: Pipes, program: int, reasons: Reasons) -> NoReturn:
    told = pipes.facts[1]
    try:
        os.setsid()
        os.umask(0o022)
        _close_all_but({0, 1, 2, told, pipes.answer[1], program})
        if _begin(order, pipes, program, reasons):
            if program >= 0:
                _become(order, program, pipes.answer[1])
            os.close(told)
            _prepare_python()
            payload = answer(order.target, order.arguments, order.limits.result_bytes)
            _flush()
            write(pipes.answer[1], payload)
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 # this is the end of a process: told, and not raised
        with suppress(OSError):
            _tell(told, failure=FailureKind.NOT_STARTED.value, message=_reason(error))
        os._exit(_BROKEN)


def _begin(order: Order, pipes: Pipes, program: int, reasons: Reasons) -> bool:
    """Confine this process and tell what held; returns whether the job may begin."""
    descriptors = frozenset({0, 1, 2, pipes.facts[1], pipes.answer[1], program})
    packages = (*_OURS, order.target.partition(".")[0]) if order.target else ()
    facts = applying.confine(
        applying.Confinement(
            Path(order.scratch),
            order.uid,
            order.gid,
            order.limits,
            packages,
            descriptors,
            program,
        ),
        reasons,
    )
    rows = fact_rows(facts)
    if unmet := observing.unmet(facts, order.require):
        missing = "; ".join(f"{fact.name.value}: {fact.detail}" for fact in unmet)
        _tell(
            pipes.facts[1], facts=rows, failure=FailureKind.NOT_ISOLATED.value, message=f"required: {missing}"
        )
        return False
    if order.target and not applying.interpreter_is_readable():
        _tell(pipes.facts[1], facts=rows, failure=FailureKind.NOT_STARTED.value, message=_unreadable(order))
        return False
    _tell(pipes.facts[1], facts=rows)
    return True


def _unreadable(order: Order) -> str:
    return (
        f"user {order.uid} cannot read the interpreter's files below {sys.prefix} and {sys.base_prefix};"
        " install it where every user may read, or let the server make mount namespaces"
    )


def _become(order: Order, program: int, answer_end: int) -> NoReturn:
    """Execute the program whose digest was compared; its standard output is the answer."""
    os.dup2(answer_end, 1)
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    home = os.getcwd()
    variables = {"LC_ALL": "C.UTF-8", "HOME": home, "TMPDIR": f"{home}/{TEMPORARY}", **order.environment}
    os.execve(program, list(order.argv), variables)  # noqa: S606 # no shell is wanted


def _tell(descriptor: int, **what: object) -> None:
    write(descriptor, json.dumps(what).encode() + b"\n")


def _reason(error: BaseException) -> str:
    text = error.strerror if isinstance(error, OSError) else ""
    return f"the job could not be begun: {text or type(error).__name__}"


def _prepare_python() -> None:
    tempfile.tempdir = os.path.join(os.getcwd(), TEMPORARY)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # the log is read while the job runs


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()


def _close_all_but(kept: set[int]) -> None:
    for descriptor in {int(name) for name in os.listdir("/proc/self/fd")} - kept:
        with suppress(OSError):  # the folder that was just listed
            os.close(descriptor)
