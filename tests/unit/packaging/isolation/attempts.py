"""Runs jobs of `jobs` and says in plain data what came of it; also as a program of its own, as another user.

As a program it takes one line of JSON: the user to become (0 for none), whether namespaces are to fail as
they do in a container, and the job. It prints one line of JSON, and with --log
the lines of the job before it, as they come.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from controlplane.packaging.isolation.confinement import kernel, system_calls
from controlplane.packaging.isolation.records import (
    IsolationFailed,
    IsolationLimits,
    IsolationSettings,
    Job,
    Log,
    Outcome,
)
from controlplane.packaging.isolation.running import run

ROOT = Path(__file__).resolve().parents[4]
JOBS = "tests.unit.packaging.isolation.jobs"
MEBIBYTE = 1 << 20
FIRST_USER = 100_000_000

SMALL = IsolationLimits(
    wall=timedelta(seconds=20),
    cpu=timedelta(seconds=2),
    memory_bytes=200 * MEBIBYTE,
    file_bytes=4 * MEBIBYTE,
    scratch_bytes=16 * MEBIBYTE,
    scratch_files=1_000,
    open_files=64,
    processes=8,
    result_bytes=MEBIBYTE,
    log_lines=20,
    log_line_chars=80,
)


class AnyJob(dict[str, str]):
    """Lets every function of `jobs` be called, by its own name."""

    def get(self, key: str, default: Any = None) -> Any:
        return f"{JOBS}:{key}"


@dataclass(slots=True)
class Came:
    """What came of a job."""

    kind: str = ""
    message: str = ""
    value: Any = None
    code: str = ""
    facts: dict[str, bool] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)


async def attempt(
    settings: IsolationSettings,
    function: str,
    arguments: Mapping[str, Any] | None = None,
    limits: IsolationLimits = SMALL,
    tell: Log | None = None,
    **more: Any,
) -> Came:
    log: list[str] = []

    def heard(line: str) -> None:
        log.append(line)
        if tell is not None:
            tell(line)

    try:
        outcome = await call(settings, function, arguments, limits, heard, **more)
    except IsolationFailed as error:
        came = Came(kind=error.kind.value, message=error.message)
        facts = error.facts
    else:
        came = Came(value=outcome.value)
        if outcome.error:
            came.code, came.message = outcome.error.code, outcome.error.message
        facts = outcome.facts
    came.facts = {fact.name.value: fact.held for fact in facts}
    came.details = {fact.name.value: fact.detail for fact in facts}
    came.log = log
    return came


async def call(
    settings: IsolationSettings,
    function: str,
    arguments: Mapping[str, Any] | None = None,
    limits: IsolationLimits = SMALL,
    log: Log | None = None,
    **more: Any,
) -> Outcome:
    job = Job(function, dict(arguments or {}), **more)
    return await run(job, limits, settings=settings, functions=AnyJob(), log=log)


def main() -> None:
    order = json.loads(sys.stdin.readline())
    scratch_root = Path(order["scratch_root"])
    if user := order["user"]:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    if order["bare"]:
        kernel.forbid_new_privileges()
        system_calls.install(local_sockets=True)
    # The kernel counts processes by user: tests that run beside this one have users of their own.
    settings = IsolationSettings(scratch_root=scratch_root, uid=FIRST_USER + os.getpid())
    times: dict[str, Any] = {name: timedelta(seconds=value) for name, value in order["times"].items()}
    limits = replace(SMALL, **times)
    tell = (lambda line: print(line, flush=True)) if "--log" in sys.argv else None
    came = asyncio.run(attempt(settings, order["function"], order["arguments"], limits, tell))
    print(json.dumps(asdict(came)), flush=True)


if __name__ == "__main__":
    main()
