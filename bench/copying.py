"""The yardstick of telemetry: a bare COPY of the same rows into a table of the same shape."""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg

from bench.load.replay import point
from controlplane.storage.location import Postgres
from controlplane.storage.migrate import upgrade
from controlplane.telemetry.rules import encode_attributes
from controlplane.telemetry.store.partitions import COPY, DAY, TYPES
from devtools.postgres import PostgresServer

_RECEIVED = 1_700_000_000_000_000


class Copying:
    """A database of the product's schema with one partition, and the rows of a fleet's points."""

    def __init__(self, server: PostgresServer, agents: int, points: int) -> None:
        self._url = server.create_database("copying")
        upgrade(Postgres(self._url))
        begin = _RECEIVED // DAY * DAY
        server.query(
            f"CREATE TABLE copied PARTITION OF telemetry_points FOR VALUES FROM ({begin}) TO ({begin + DAY})",
            "copying",
        )
        self.rows = [
            (
                f"bench-{number % agents:05d}",
                one.metric,
                one.time.ToMicroseconds(),
                one.value,
                encode_attributes(one.attributes),
                _RECEIVED,
                1,
            )
            for number in range(points)
            for one in (point(number % 100),)
        ]

    def run(self, database_cpu: Callable[[], float]) -> tuple[float, float]:
        """Copy all rows in one transaction; returns seconds of CPU, the database's too, and of time."""
        with psycopg.connect(self._url) as connection:
            before, own, began = database_cpu(), time.process_time(), time.perf_counter()
            with connection.cursor().copy(COPY) as copy:
                copy.set_types(TYPES)
                for row in self.rows:
                    copy.write_row(row)
            connection.commit()
            cpu = database_cpu() - before + time.process_time() - own
            return cpu, time.perf_counter() - began
