"""Renders the tables of the documents that repeat what the code says, between markers in each file.

Usage: python scripts/doc_tables.py [--check] [NAME ...], of those in TABLES

Without names, all of them. With --check nothing is written, and the exit status is 1 where a document
has drifted from the code. Tests in tests/contracts hold every table to this.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from importlib.metadata import PackageNotFoundError, files, metadata
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import PydanticUndefined

from bench import report
from controlplane.observability.metrics import Metrics
from controlplane.observability.statements import LABELS, StatementMetrics
from controlplane.settings import ClientSettings, Settings
from controlplane.transport.methods import METHODS, Method

ROOT = Path(__file__).parents[1]


class Table(NamedTuple):
    """One table: the document that holds it, and what renders it."""

    document: str
    render: Callable[[], str]


class Reason(NamedTuple):
    """One value of ErrorReason, as errors.proto documents it."""

    name: str
    number: int
    status: str
    meaning: str


def _rows(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in line) + " |"
        for line in lines
    )


def _value(value: Any) -> str:
    if value is PydanticUndefined or value in ("", (), None):
        return "(empty)"
    if isinstance(value, timedelta):
        return _duration(value)
    if isinstance(value, tuple):
        return f"`{','.join(value)}`"
    return f"`{value}`"


def _duration(value: timedelta) -> str:
    units = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))
    seconds = value.total_seconds()
    for size, unit in units:
        if seconds and seconds % size == 0 and (size < 86_400 or seconds > size):
            return f"`{seconds / size:.0f}{unit}`"
    return "`0s`" if not seconds else f"`{seconds * 1000:.0f}ms`"


def _range(limits: Sequence[Any]) -> str:
    least = next((item.ge for item in limits if hasattr(item, "ge")), None)
    most = next((item.le for item in limits if hasattr(item, "le")), None)
    if least is None and most is None:
        return ""
    return f"{_value(least)} to {_value(most)}"


def settings() -> str:
    """Return one row for each setting of the server."""
    return _rows(
        ("variable", "default", "range", "meaning"),
        (
            (
                f"`FLEETWRIGHT_{name.upper()}`",
                _value(field.default),
                _range(field.metadata),
                field.description or "",
            )
            for name, field in Settings.model_fields.items()
        ),
    )


def client() -> str:
    """Return one row for each variable that the command, as a client, reads."""
    return _rows(
        ("variable", "meaning"),
        (
            (f"`FLEETWRIGHT_{name.upper()}`", field.description or "")
            for name, field in ClientSettings.model_fields.items()
            if field.validation_alias is None
        ),
    )


def metrics() -> str:
    """Return one row for each metric of our own."""
    return _rows(
        ("metric", "type", "labels", "meaning"),
        (row for made in vars(Metrics()).values() for row in _metric(made)),
    )


def _metric(made: Any) -> Iterator[tuple[str, str, str, str]]:
    if isinstance(made, StatementMetrics):
        found = [(*described, LABELS) for described in made.described]
    elif hasattr(made, "_labelnames"):
        found = [(made._name, made._type, made._documentation, made._labelnames)]
    else:
        return
    for name, kind, meaning, labels in found:
        total = "_total" if kind == "counter" else ""
        yield f"`{name}{total}`", kind, ", ".join(f"`{label}`" for label in labels), meaning


def methods() -> str:
    """Return one row for each method of the contract, from the method table."""

    def row(method: Method) -> tuple[str, ...]:
        callers = ", ".join(sorted(kind.value for kind in method.callers))
        deadline = "none" if method.deadline is None else f"{method.deadline.total_seconds():.0f} s"
        rate = f"{method.rate.per_second:g} a second, {method.rate.burst:,} at once"
        listeners = ", ".join(sorted(listener.value for listener in method.listeners))
        name = f"`{method.service.removeprefix('fleetwright.v1.')}/{method.name}`"
        return name, listeners, callers, deadline, rate, "yes" if method.audited else ""

    header = ("method", "listener", "callers", "deadline", "rate of one caller", "audited")
    return _rows(header, (row(m) for m in METHODS.values() if m.service.startswith("fleetwright.")))


def reasons() -> list[Reason]:
    """Return every reason of errors.proto but UNSPECIFIED, in its order."""
    text = (ROOT / "proto/fleetwright/v1/errors.proto").read_text(encoding="utf-8")
    body = text[text.index("enum ErrorReason {") :]
    found = []
    for comment, name, number in re.findall(r"((?: *//.*\n)+) *ERROR_REASON_(\w+) = (\d+);", body):
        words = " ".join(line.strip().removeprefix("//").strip() for line in comment.splitlines())
        status, _, meaning = words.partition(": ")
        if name != "UNSPECIFIED":
            found.append(Reason(name, int(number), status, meaning[:1].upper() + meaning[1:]))
    return found


def errors() -> str:
    """Return one row for each ErrorReason."""
    return _rows(
        ("reason", "number", "status", "meaning"),
        ((f"`{one.name}`", str(one.number), one.status, one.meaning) for one in reasons()),
    )


def locked() -> dict[str, str]:
    """Return name and version of everything in the runtime's lock file."""
    lock = (ROOT / "requirements/runtime.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock, re.MULTILINE))


def licence(name: str) -> str | None:
    """Return the licence that a distribution declares; "" for none, None where it is not installed."""
    try:
        declared = metadata(name)
    except PackageNotFoundError:
        return None
    classifiers = [
        text.rpartition(" :: ")[2]
        for text in declared.get_all("Classifier") or []
        if text.startswith("License ::")
    ]
    stated = [*(declared.get_all("License-Expression") or []), *(declared.get_all("License") or [])]
    text = next(filter(None, [*stated, " AND ".join(classifiers), _of_file(name)]), "")
    return str(text).strip().partition("\n")[0]


def _of_file(name: str) -> str:
    """Return the licence whose text a distribution brings, where that is one that we know; else ""."""
    for path in files(name) or ():
        if path.name.startswith(("LICENSE", "LICENCE")):
            words = " ".join(path.read_text(encoding="utf-8").split())
            if words.startswith("Apache License Version 2.0"):
                return "Apache-2.0"
    return ""


def licences() -> str:
    """Return one row for each distribution of the runtime that is installed here."""
    wanted = (ROOT / "requirements/runtime.in").read_text(encoding="utf-8")
    direct = {re.split(r"[\[<>=~ ]", line)[0] for line in wanted.splitlines() if not line.startswith("#")}
    return _rows(
        ("distribution", "version", "licence", "imported by us"),
        (
            (name, version, text, "yes" if name in direct else "")
            for name, version in locked().items()
            if (text := licence(name)) is not None
        ),
    )


def bench(backing: str = "sqlite") -> str:
    """Return the figures of the last whole run of the bench on a ``Backing.name`` that was written."""
    results = report.read(report.results_of(backing))
    if results is None:
        return "(not run yet)"
    rows = _rows(report.FIGURE_HEADER, report.figure_rows(results))
    if backing != "sqlite":
        # These stand in the document of the profiles itself.
        rows = re.sub(
            rf"{report.PROFILES}(#profile-of-\w+)", lambda found: found[1] + _slug(_ON[backing]), rows
        )
    return f"{rows}\n\n{report.origin(results)}"


_ON = {"sqlite": "", "postgresql": " on PostgreSQL", "postgresql-2-gateways": " with two gateways"}
"""What the title of a profile says of the run that it is of."""


def _slug(title: str) -> str:
    return title.lower().replace(" ", "-")


def profiles(backing: str = "sqlite") -> str:
    """Return a profile for each measure that missed a budget in that run."""
    results = report.read(report.results_of(backing))
    return "\n\n".join(
        f"### Profile of {name}{_ON[backing]}\n\n{report.summary(profile)}\n\n"
        f"{_rows(report.PROFILE_HEADER, report.profile_rows(profile))}"
        for name, profile in (results.profiles if results else {}).items()
    )


TABLES = {
    "settings": Table("docs/operations.md", settings),
    "client": Table("docs/command-line.md", client),
    "metrics": Table("docs/operations.md", metrics),
    "methods": Table("docs/operations.md", methods),
    "errors": Table("docs/errors.md", errors),
    "licences": Table("docs/decisions/0009-library-licences.md", licences),
    "bench": Table("README.md", bench),
    "profiles": Table("docs/performance.md", profiles),
    "bench-postgresql": Table("docs/performance.md", partial(bench, "postgresql")),
    "profiles-postgresql": Table("docs/performance.md", partial(profiles, "postgresql")),
    "bench-gateways": Table("docs/performance.md", partial(bench, "postgresql-2-gateways")),
    "profiles-gateways": Table("docs/performance.md", partial(profiles, "postgresql-2-gateways")),
}


def with_table(text: str, name: str) -> str:
    """Return a document with the table ``name`` rendered anew. Raises ``ValueError`` without its markers."""
    begin, end = f"<!-- table {name}: scripts/doc_tables.py -->", f"<!-- end of {name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the markers {begin} and {end} are missing")
    return f"{before}{begin}\n{TABLES[name].render()}\n{end}{after}"


def main(arguments: Sequence[str]) -> int:
    """Render or check tables; returns the exit status."""
    checking = "--check" in arguments
    names = [name for name in arguments if name != "--check"] or list(TABLES)
    drifted = []
    for name in names:
        document = ROOT / TABLES[name].document
        text = document.read_text(encoding="utf-8")
        fresh = with_table(text, name)
        if fresh == text:
            continue
        drifted.append(name)
        if not checking:
            document.write_text(fresh, encoding="utf-8")
    print("drifted:" if checking else "rendered:", ", ".join(drifted) or "none")
    return 1 if checking and drifted else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
