"""An agent whose copy takes its sessions, against the rules of the server: every point is stored once."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from fleetwright.v1 import work_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_sim.protocol.journal import Journal, MemoryJournal, SQLiteJournal
from controlplane.telemetry.rules import MAX_STRETCHES, Stretches, place, stored_until, stretched

_LARGE = 1 << 20


class _Server:
    """One journal's cursor, by the server's own rules."""

    def __init__(self) -> None:
        self.stored: list[float] = []
        self.lost = 0
        self.newest = 0
        self.last = 0
        self._stretches: Stretches = ()

    def opens(self) -> int:
        self.newest += 1
        return self.newest

    def answers(self, previous: int) -> tuple[int, int | None]:
        return self.last, stored_until(self._stretches, previous, self.last) if previous else None

    def takes(self, epoch: int, first: int, dropped: int, values: list[float]) -> bool:
        if epoch < self.newest:
            return False
        placement = place(self.last, first, dropped, len(values))
        self.stored += values[placement.duplicates :]
        self.lost += placement.lost
        self._stretches = stretched(self._stretches, epoch, self.last)
        self.last = placement.last_sequence
        return True


class _Original:
    """What a process of an agent does, one step at a time."""

    def __init__(self, journal: Journal, server: _Server) -> None:
        self._journal = journal
        self._server = server
        self._sent = 0
        self.epoch = 0
        self.measured = 0

    async def measure(self, count: int) -> None:
        values = [float(self.measured + place) for place in range(count)]
        self.measured += count
        points = [work_pb2.TelemetryPoint(metric="m", value=value) for value in values]
        await self._journal.append_points(points)

    async def connect(self) -> None:
        self.epoch = self._server.opens()
        await self.open()

    async def open(self) -> None:
        last, previous = self._server.answers(self._journal.points_epoch)
        await self._journal.resume_points(self.epoch, last, previous)
        self._sent = last

    async def send(self, limit: int, heard: bool) -> bool:
        found = await self._journal.read_points(self._sent, limit, _LARGE)
        if not found.points:
            return False
        values = [work_pb2.TelemetryPoint.FromString(point).value for point in found.points]
        taken = self._server.takes(
            self.epoch, found.first_sequence, found.first_sequence - self._sent - 1, values
        )
        self._sent = found.first_sequence + len(values) - 1
        if taken and heard:
            await self._journal.acknowledge_points(self._server.last)
        return True


async def _play(journal: Journal, steps: list[tuple[str, int]]) -> tuple[_Server, _Original]:
    server = _Server()
    original = _Original(journal, server)
    await original.connect()
    for step, count in steps:
        if step == "measure":
            await original.measure(count)
        elif step == "copy":
            server.takes(server.opens(), server.last + 1, 0, [-1.0] * count)
        elif step == "connect":
            await original.connect()
        elif step == "open":
            await original.open()
        else:
            await original.send(count, heard=step == "send")
    await original.connect()
    while await original.send(100, heard=True):
        pass
    return server, original


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["measure", "send", "send unheard", "copy", "connect", "open"]), st.integers(1, 4)
    ),
    max_size=14,
).filter(lambda steps: sum(step == "copy" for step, _ in steps) < MAX_STRETCHES)


def _on_disk(folder: str) -> Journal:
    return SQLiteJournal(Path(folder) / "journal.db", reserve_bytes=0)


@pytest.mark.parametrize(
    ("make", "examples"), [(lambda _: MemoryJournal(), 300), (_on_disk, 25)], ids=["memory", "disk"]
)
def test_every_point_is_stored_once_however_often_a_copy_takes_the_session(
    make: Callable[[str], Journal], examples: int
) -> None:
    @settings(max_examples=examples, deadline=None)
    @given(_STEPS)
    def plays(steps: list[tuple[str, int]]) -> None:
        async def play() -> tuple[_Server, _Original]:
            with tempfile.TemporaryDirectory() as folder:
                journal = make(folder)
                try:
                    return await _play(journal, steps)
                finally:
                    await journal.close()

        server, original = asyncio.run(play())
        mine = [value for value in server.stored if value >= 0]
        assert sorted(mine) == [float(value) for value in range(original.measured)]
        assert mine == sorted(mine), "in their order"
        assert server.lost == 0

    plays()
