"""What is counted of database statements: plain numbers, made into metrics when somebody looks.

A statement is the smallest thing that is counted here and the most frequent. A
histogram of the library costs about 3 µs each time, under its locks; these
numbers are touched by the event loop's thread alone, which also answers scrapes,
so they need none. Only a tally itself may be made in the thread of a connection.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

LABELS = ("query", "engine")
BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5)
"""Seconds: from tens of microseconds for a row by its key to the time of a slow sync."""


class Described(NamedTuple):
    """A metric as documents tell of it."""

    name: str
    type: str
    meaning: str


SECONDS = Described("fleetwright_statement_seconds", "histogram", "Time of statements in the database.")
ROWS = Described("fleetwright_statement_rows", "counter", "Rows returned or changed.")
FAILURES = Described("fleetwright_statement_failures", "counter", "Statements that failed.")


class Tally:
    """What is counted of one query on one engine."""

    __slots__ = ("buckets", "failures", "rows", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0
        self.rows = 0
        self.failures = 0

    def done(self, seconds: float, rows: int) -> None:
        """Count a statement that the database answered; negative ``rows`` are not known."""
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds
        if rows > 0:
            self.rows += rows

    def cumulative(self) -> list[tuple[str, float]]:
        """Return the buckets as the Prometheus format wants them: each with all that are below it."""
        total, found = 0, []
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), self.buckets, strict=True):
            total += count
            found.append((bound, float(total)))
        return found


class StatementMetrics(Collector):
    """Every tally of the process. The names are those of functions of the program, hence bounded."""

    described = (SECONDS, ROWS, FAILURES)

    def __init__(self, registry: CollectorRegistry) -> None:
        self.tallies: dict[tuple[str, str], Tally] = {}
        """By query and engine."""
        registry.register(self)

    def tally(self, query: str, engine: str) -> Tally:
        """Return what is counted of ``query`` on ``engine``."""
        return self.tallies.setdefault((query, engine), Tally())

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as they are now."""
        seconds = HistogramMetricFamily(SECONDS.name, SECONDS.meaning, labels=LABELS)
        rows = CounterMetricFamily(ROWS.name, ROWS.meaning, labels=LABELS)
        failures = CounterMetricFamily(FAILURES.name, FAILURES.meaning, labels=LABELS)
        # A copy, in one step: a group commit may meet a new query in its own thread meanwhile.
        for labels, tally in list(self.tallies.items()):
            seconds.add_metric(labels, tally.cumulative(), tally.seconds)
            rows.add_metric(labels, tally.rows)
            failures.add_metric(labels, tally.failures)
        yield from (seconds, rows, failures)
