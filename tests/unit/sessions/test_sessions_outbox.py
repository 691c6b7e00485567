"""What waits to be written on a Tasks stream."""

from __future__ import annotations

import asyncio

import pytest
from fleetwright.v1 import agent_service_pb2 as pb2
from fleetwright.v1 import work_pb2

from controlplane.sessions import outbox
from controlplane.sessions.outbox import Outbox


def acknowledged(attempt_id: str) -> pb2.TasksResponse:
    return pb2.TasksResponse(result_acknowledged=pb2.ResultAcknowledged(attempt_id=attempt_id))


def cancel(attempt_id: str) -> pb2.TasksResponse:
    return pb2.TasksResponse(cancel=pb2.AttemptCancel(attempt_id=attempt_id))


def assignment(size: int) -> pb2.TasksResponse:
    spec = work_pb2.TaskSpec(echo=work_pb2.EchoSpec(payload=bytes(size)))
    return pb2.TasksResponse(assignment=pb2.Assignment(attempt_id="a", spec=spec))


class Written:
    """A stream that notes what it is given."""

    def __init__(self) -> None:
        self.kinds: list[str | None] = []

    async def __call__(self, response: pb2.TasksResponse) -> None:
        self.kinds.append(response.WhichOneof("message"))


async def test_everything_is_written_in_order_and_then_it_ends() -> None:
    box, written = Outbox(lambda: None), Written()
    box.put(assignment(1))
    writing = asyncio.create_task(box.write_all(written))
    box.put(cancel("b"))
    box.put(acknowledged("c"))
    box.close(refused=False)
    await writing
    assert written.kinds == ["assignment", "cancel", "result_acknowledged"]


async def test_who_is_refused_hears_only_of_results_that_are_durable() -> None:
    box, written = Outbox(lambda: None), Written()
    for response in (assignment(1), acknowledged("a"), cancel("b"), acknowledged("c")):
        box.put(response)
    box.close(refused=True)
    await box.write_all(written)
    assert written.kinds == ["result_acknowledged"] * 2


async def test_there_is_room_to_read_while_few_answers_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "ANSWERS", 2)
    box = Outbox(lambda: None)
    box.put(cancel("a"))
    assert box.room.is_set()
    box.put(cancel("b"))
    assert not box.room.is_set()
    box.close(refused=False)
    await box.write_all(Written())
    assert box.room.is_set()


async def test_assignments_wait_within_a_bound_of_bytes_and_their_place_is_told_when_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox, "ASSIGNED_BYTES", 2_000)
    freed: list[bool] = []
    box = Outbox(lambda: freed.append(box.takes_assignments))
    box.put(assignment(1_000))
    box.put(cancel("b"))
    assert box.takes_assignments
    box.put(assignment(1_000))
    box.put(assignment(1_000))
    assert not box.takes_assignments
    box.close(refused=False)
    await box.write_all(Written())
    assert freed == [True]
