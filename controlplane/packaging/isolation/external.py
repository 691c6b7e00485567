"""Runs a foreign program in isolation: pinned to its bytes, named by its path, with a list of arguments."""

from __future__ import annotations

from controlplane.packaging.isolation.guarding import Ended, guarded
from controlplane.packaging.isolation.protocol import Order
from controlplane.packaging.isolation.records import (
    IsolationLimits,
    IsolationSettings,
    Log,
    Program,
    ProgramOutcome,
)


async def run_program(
    program: Program,
    limits: IsolationLimits,
    *,
    settings: IsolationSettings,
    log: Log | None = None,
) -> ProgramOutcome:
    """Start a program and return its exit status and output. Its working folder is as that of a ``Job``.

    The digest is compared on the file that is then executed, whatever is put in its place meanwhile. Standard
    input is empty. Files in ``out/`` are taken over only at exit status 0. Raises ``IsolationFailed``, where
    the program was ended by a limit or a signal too; which exit status is a success is for the caller to say.
    """
    order = Order(
        scratch="",
        uid=settings.uid,
        gid=settings.gid,
        limits=limits,
        require=sorted(name.value for name in settings.require),
        program=str(program.path),
        sha256=program.sha256,
        argv=(str(program.path), *program.arguments),
        environment=dict(program.environment),
    )
    return await guarded(order, program.inputs, program.outputs, settings, log, _outcome)


def _outcome(ended: Ended) -> tuple[ProgramOutcome, bool]:
    report = ended.report
    outcome = ProgramOutcome(report.status, ended.answer, "\n".join(ended.lines), report.facts, report.usage)
    return outcome, report.status == 0
