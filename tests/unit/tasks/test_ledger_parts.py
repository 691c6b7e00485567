"""The parts of the ledger that need no database: its numbers, its bounds, and what is dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fleetwright.v1 import delivery_service_pb2 as pb2

from controlplane.errors import Unavailable
from controlplane.tasks.ledger import observing
from controlplane.tasks.ledger.events import MAX_DETAIL, OBSERVATIONS, DeliveryEvent, EventRow, event_row
from controlplane.tasks.ledger.observing import Observations, Observe


class Committing:
    """A writer that keeps what it was given, or refuses it."""

    def __init__(self) -> None:
        self.groups: list[Sequence[EventRow]] = []
        self.refuses = False
        self.came = asyncio.Event()

    def register(self, kind: type, applier: Any) -> None:
        assert kind is Observe

    async def submit(self, operation: Observe) -> None:
        self.came.set()
        if self.refuses:
            raise Unavailable("UNAVAILABLE", "the disk is full")
        self.groups.append(operation.rows)


class World:
    def __init__(self) -> None:
        self.writer = Committing()
        self.lost: list[int] = []
        writer: Any = self.writer
        self.observations = Observations(writer, lambda: 99, self.lost.append)

    def note(self, count: int) -> None:
        for number in range(count):
            self.observations.note(DeliveryEvent.SENT, f"t{number}", "a", "web-1", 1, number)

    def written(self) -> list[str]:
        return [row["task_id"] for group in self.writer.groups for row in group if row["task_id"]]

    def markers(self) -> list[str]:
        return [row["detail"] for group in self.writer.groups for row in group if not row["task_id"]]


def test_events_are_those_of_the_contract() -> None:
    theirs = {
        name.removeprefix("DELIVERY_EVENT_TYPE_"): number
        for name, number in pb2.DeliveryEventType.items()
        if number
    }
    assert {event.name: int(event) for event in DeliveryEvent} == theirs


def test_a_comment_of_the_contract_says_whether_an_event_is_an_observation() -> None:

    text = (Path(__file__).parents[3] / "proto/fleetwright/v1/delivery_service.proto").read_text("utf-8")
    for event in DeliveryEvent:
        comment = text[: text.index(f"DELIVERY_EVENT_TYPE_{event.name} =")].rpartition("  // ")[2]
        assert comment.startswith("Observation: " if event in OBSERVATIONS else "State: "), event


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("short", "short"),
        ("a" * MAX_DETAIL, "a" * MAX_DETAIL),
        ("a" * (MAX_DETAIL + 1), "a" * (MAX_DETAIL - 1) + "…"),
        ("null \0 byte", "null \N{REPLACEMENT CHARACTER} byte"),
    ],
)
def test_a_detail_is_one_that_any_database_takes(given: str, kept: str) -> None:
    assert event_row(DeliveryEvent.COMMITTED, "t", None, "a", 1, None, given)["detail"] == kept


async def test_observations_are_written_in_order_and_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observing, "AT_ONCE", 3)
    world = World()
    world.note(7)
    await world.observations.flush()
    assert [len(group) for group in world.writer.groups] == [3, 3, 1]
    assert world.written() == [f"t{number}" for number in range(7)]
    await world.observations.flush()
    assert len(world.writer.groups) == 3


async def test_what_is_too_much_is_dropped_counted_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observing, "KEPT", 5)
    world = World()
    world.note(8)
    assert sum(world.lost) == 3
    await world.observations.flush()
    assert (len(world.written()), world.markers()) == (5, ["3"])
    world.note(1)
    await world.observations.flush()
    assert world.markers() == ["3"]


async def test_what_cannot_be_written_is_counted_and_said_once_it_can() -> None:
    world = World()
    world.writer.refuses = True
    world.note(4)
    await world.observations.flush()
    assert (world.written(), sum(world.lost)) == ([], 4)
    world.note(2)
    await world.observations.flush()
    assert sum(world.lost) == 6
    world.writer.refuses = False
    world.note(1)
    await world.observations.flush()
    assert (world.written(), world.markers(), sum(world.lost)) == (["t0"], ["6"], 6)


async def test_they_are_written_by_themselves_once_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observing, "AT_ONCE", 3)
    world = World()
    world.observations._every = 3_600
    running = asyncio.create_task(world.observations.run())
    world.note(2)
    await asyncio.sleep(0)
    assert not world.writer.came.is_set()
    world.note(1)
    await asyncio.wait_for(world.writer.came.wait(), 30)
    running.cancel()
    assert len(world.written()) == 3


async def test_they_are_written_by_themselves_after_a_while() -> None:
    world = World()
    world.observations._every = 0.001
    running = asyncio.create_task(world.observations.run())
    for _ in range(2):
        world.writer.came.clear()
        world.note(1)
        await asyncio.wait_for(world.writer.came.wait(), 30)
    running.cancel()
    assert len(world.written()) == 2
