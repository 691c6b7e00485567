"""What a fault did to the product, in numbers; as JSON lines and as a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

NOTICED_WITHIN = 30.0
"""Seconds within which one side must see that the other one is stopped."""


NOT_TRIED = "not tried"
FAILED = "FAILED"
_STYLES = {NOT_TRIED: "yellow", FAILED: "bold red"}


@dataclass
class Row:
    """One fault, and what was counted before and after it."""

    name: str
    what: str
    tasks: int = 0
    """Tasks whose creation was acknowledged to a caller."""
    results: int = 0
    """Results that were acknowledged to an agent."""
    points: int = 0
    """Telemetry points that were acknowledged to an agent."""
    pipelines: int = 0
    """Pipelines whose creation was acknowledged to a caller."""
    lost: int = 0
    """How much of what was acknowledged is not there afterwards, or did not happen."""
    effects: int = 0
    """Lines of the witness: what hosts really did; of pipelines, publications of packages."""
    doubled: int = 0
    """Effects beyond one of a task, tasks beyond one of a request, points stored twice; packages, rows and
    releases beyond one of a pipeline."""
    recovered: float | None = None
    """Seconds from the end of the fault until every agent was back and new work was done, or the pipeline
    that was struck had ended; of several strikes, the longest."""
    noticed: float | None = None
    """Seconds until the other side saw the fault, where the row is about that."""
    seconds: float = 0.0
    """How long the whole row took."""
    note: str = ""
    skipped: str = ""
    """Why the fault was not tried on this machine; the numbers are of nothing then."""
    problems: list[str] = field(default_factory=list)
    """What was lost or doubled by name, and what else did not happen as it must."""

    @property
    def acknowledged(self) -> int:
        """Everything that was acknowledged."""
        return self.tasks + self.results + self.points + self.pipelines

    @property
    def good(self) -> bool:
        """Whether it was tried, work was done, nothing was lost or doubled, and nothing else went wrong."""
        return bool(self.effects) and not (self.skipped or self.lost or self.doubled or self.problems)

    @property
    def verdict(self) -> str:
        """Return one word for people: a fault that was not tried is neither good nor failed."""
        return NOT_TRIED if self.skipped else "good" if self.good else FAILED

    def json(self) -> dict[str, Any]:
        """Return it as one JSON object."""
        return {**asdict(self), "acknowledged": self.acknowledged, "good": self.good}


HEADER = ("fault", "acknowledged", "lost", "effects", "doubled", "time to recover", "noticed after", "")


def cells(row: Row) -> tuple[str, ...]:
    """Return the cells of one line of the table."""
    return (
        row.name,
        _acknowledged(row),
        f"{row.lost:,}",
        f"{row.effects:,}",
        f"{row.doubled:,}",
        _seconds(row.recovered),
        _seconds(row.noticed),
        _last(row),
    )


def _acknowledged(row: Row) -> str:
    if row.pipelines:
        return f"{row.pipelines:,} pipelines"
    return f"{row.acknowledged:,} ({row.tasks:,} tasks, {row.results:,} results, {row.points:,} points)"


def _last(row: Row) -> str:
    if row.skipped:
        return f"{NOT_TRIED}: {row.skipped}"
    return row.note if row.good else FAILED


def table(rows: Sequence[Row]) -> Table:
    """Return the table of some rows."""
    made = Table(title="What was acknowledged, and what became of it", title_justify="left")
    for name, justify in zip(HEADER, ("left", *["right"] * 6, "left"), strict=True):
        made.add_column(name, justify="right" if justify == "right" else "left")
    for row in rows:
        made.add_row(*cells(row), style=_STYLES.get(row.verdict))
    return made


def markdown(rows: Sequence[Row]) -> str:
    """Return the table as a document has it."""
    lines = [HEADER, ("---", *["---:"] * 6, "---"), *(cells(row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"
