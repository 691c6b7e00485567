"""What the server and the guard say to each other: one order, and one report with the job's answer behind it.

The order is one line of JSON on the guard's standard input, which stays open: its end is the server's, and
the guard ends everything then. The report is one line of JSON on standard output; after it come the bytes
that the job answered, which are untrusted. Standard error carries what the job wrote for the log.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta

from controlplane.packaging.isolation.records import (
    Fact,
    FactName,
    FailureKind,
    IsolationLimits,
    JsonValue,
    Usage,
)

ORDER_BYTES = 4 << 20
"""Longest order: arguments are names and settings; what is large is an input."""
REPORT_BYTES = 1 << 20
"""Longest report without the answer."""


@dataclass(frozen=True, slots=True)
class Order:
    """What the guard is to have done: a function, or a program where ``program`` is set."""

    scratch: str
    uid: int
    gid: int
    limits: IsolationLimits
    require: Sequence[str]
    target: str = ""
    arguments: Mapping[str, JsonValue] = field(default_factory=dict)
    program: str = ""
    sha256: str = ""
    argv: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Report:
    """How it ended, as the guard saw it."""

    facts: tuple[Fact, ...]
    usage: Usage
    status: int
    """Exit status of the job; negative for a signal."""
    failure: FailureKind | None = None
    """Set where the guard ended the job, or did not begin it."""
    message: str = ""


def order_line(order: Order) -> bytes:
    """Return the order as a line; raises ``ValueError`` for arguments that are no JSON or too long."""
    try:
        told = asdict(order)
        told["limits"] = {
            name: value.total_seconds() if isinstance(value, timedelta) else value
            for name, value in told["limits"].items()
        }
        line = json.dumps(told, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"arguments: cannot be written as JSON: {error}") from None
    if len(line) > ORDER_BYTES:
        raise ValueError(f"arguments: {len(line)} bytes; at most {ORDER_BYTES}: pass an input instead")
    return line


def read_order(line: bytes) -> Order:
    """Return the order of a line that the server wrote."""
    told = json.loads(line)
    limits = told.pop("limits")
    wall, cpu = (timedelta(seconds=limits.pop(name)) for name in ("wall", "cpu"))
    return Order(limits=IsolationLimits(wall=wall, cpu=cpu, **limits), **told)


def fact_rows(facts: Sequence[Fact]) -> list[list[str | bool]]:
    """Return facts as JSON."""
    return [[fact.name.value, fact.held, fact.detail] for fact in facts]


def read_facts(rows: Sequence[Sequence[object]]) -> tuple[Fact, ...]:
    """Return the facts of ``fact_rows``."""
    return tuple(Fact(FactName(name), held is True, str(detail)) for name, held, detail in rows)


def report_line(report: Report) -> bytes:
    """Return the report as a line."""
    told = {
        "facts": fact_rows(report.facts),
        "wall": report.usage.wall.total_seconds(),
        "cpu": report.usage.cpu.total_seconds(),
        "memory": report.usage.memory_bytes,
        "status": report.status,
        "failure": report.failure.value if report.failure else "",
        "message": report.message,
    }
    return json.dumps(told).encode() + b"\n"


def read_report(line: bytes) -> Report:
    """Return the report of a line; raises ``ValueError`` for anything else."""
    try:
        told = json.loads(line)
        usage = Usage(timedelta(seconds=told["wall"]), timedelta(seconds=told["cpu"]), int(told["memory"]))
        failure = FailureKind(told["failure"]) if told["failure"] else None
        return Report(read_facts(told["facts"]), usage, int(told["status"]), failure, str(told["message"]))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"no report: {type(error).__name__}") from None
