"""How many statements each message of an agent and each group commit may issue, for one row and for many."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
from fleetwright.v1 import agent_service_pb2 as pb2
from fleetwright.v1 import (
    work_pb2,
)

from controlplane.agents.operations import ChangePresence, OpenSession
from controlplane.agents.rules import Presence, PresenceReason
from controlplane.identity.operations import AdoptCertificate, UseCertificate
from controlplane.storage.writer import Operation
from controlplane.tasks.ledger.events import DeliveryEvent, event_row
from controlplane.tasks.ledger.observing import Observe
from controlplane.tasks.operations import (
    Accept,
    Adopt,
    AppendOutput,
    Create,
    Finish,
    Lease,
    Progress,
)
from controlplane.tasks.records import Chunk, Due, NewTask, Options
from controlplane.tasks.rules import Outcome
from controlplane.telemetry.operations import StoreBatch
from tests.contracts.budget_world import ECHO, MANY, Cost, Doing, World, check, describe, opened
from tests.support.agents import RawSession, accepted, succeeded
from tests.support.streams import Stream

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with opened(tmp_path_factory.mktemp("budgets") / "data") as made:
        yield made


# --- messages of an agent's streams


MESSAGES = {
    "heartbeat hello": Cost(5, 3),
    "heartbeat beat": Cost(0, 0),
    "heartbeat goodbye": Cost(3, 1),
    "tasks open": Cost(7, 2),
    "tasks credits": Cost(1, 1),
    "tasks accepted": Cost(5, 1),
    "tasks progress": Cost(3, 1),
    "tasks chunk": Cost(3, 1),
    "tasks finished": Cost(6, 2),
    "telemetry open": Cost(1, 1),
    "telemetry batch": Cost(4, 1),
}


async def test_every_message_of_an_agent_has_a_budget() -> None:
    kinds = {
        f"{stream} {field.name}"
        for stream, request in (
            ("heartbeat", pb2.HeartbeatRequest),
            ("tasks", pb2.TasksRequest),
            ("telemetry", pb2.TelemetryRequest),
        )
        for field in request.DESCRIPTOR.oneofs_by_name["message"].fields
    }
    assert set(MESSAGES) == kinds


class Talk:
    """One agent's session from Hello to Goodbye, with one task; ``found`` is what each message cost."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.found: dict[str, tuple[Cost, str]] = {}
        self._session: RawSession
        self._tasks: Stream
        self._telemetry: Stream
        self._attempt = ""

    async def measure(self, kind: str, doing: Doing) -> None:
        cost, issued = await self._world.cost(doing)
        self.found[kind] = cost, describe(issued)

    async def run(self) -> None:
        agent = self._world.agents[3]
        await self._world.tasks([agent.agent_id])
        await self.measure("heartbeat hello", self._hello)
        await self.measure("heartbeat beat", self._session.beat)
        await self.measure("tasks open", self._open_tasks)
        attempt = self._attempt
        chunk = pb2.OutputChunk(attempt_id=attempt, stream=work_pb2.OUTPUT_STREAM_STDOUT, data=b"x")
        for kind, message in (
            ("accepted", accepted(attempt)),
            ("progress", pb2.AttemptProgress(attempt_id=attempt, percent=1)),
            ("chunk", chunk),
            ("finished", succeeded(attempt, stdout_bytes=1)),
            ("credits", pb2.CreditsAdded(credits=1)),
        ):
            await self.measure(f"tasks {kind}", partial(self._say, **{kind: message}))
        await self.measure("telemetry open", self._open_telemetry)
        await self.measure("telemetry batch", self._store)
        await self.measure("heartbeat goodbye", self._session.goodbye)

    async def _hello(self) -> None:
        self._session = await self._world.agents[3].come()

    async def _open_tasks(self) -> None:
        self._tasks = await self._session.tasks(allowed=1)
        await self._tasks.expect("opened")
        self._attempt = (await self._tasks.expect("assignment")).attempt_id

    async def _say(self, **message: Any) -> None:
        await self._tasks.send(**message)
        # Most have no answer. What comes later on the same connection is read later.
        await self._session.beat()

    async def _open_telemetry(self) -> None:
        self._telemetry = await self._session.telemetry()
        await self._telemetry.expect("opened")

    async def _store(self) -> None:
        await self._telemetry.send(batch=self._session.batch(1, [1.0] * MANY))
        await self._telemetry.expect("acknowledged")


async def test_messages_of_an_agent_issue_their_statements_and_no_more(world: World) -> None:
    talk = Talk(world)
    await talk.run()
    assert {kind: cost for kind, (cost, _) in talk.found.items()} == MESSAGES, talk.found


# --- group commits


Operations = Callable[[World, int], Awaitable[list[Operation[Any]]]]


async def open_sessions(world: World, rows: int) -> list[Operation[Any]]:
    return [world.opening(agent_id) for agent_id in await world.registered(rows)]


async def change_presences(world: World, rows: int) -> list[Operation[Any]]:
    ids = await world.registered(rows)
    sessions = await world.submit([world.opening(agent_id) for agent_id in ids])
    return [
        ChangePresence(agent_id, session.epoch, Presence.OFFLINE, PresenceReason.STREAM_LOST, "", world.now)
        for agent_id, session in zip(ids, sessions, strict=True)
    ]


async def create(world: World, rows: int) -> list[Operation[Any]]:
    options = Options(0, 3_600_000_000, 600_000_000, idempotent=False, max_attempts=1)
    new_task = NewTask("echo", ECHO.SerializeToString(), options)
    return [
        Create("ada", world.name(), b"d", world.name(), agent_id, new_task, Due(world.now), world.now)
        for agent_id in await world.registered(rows)
    ]


async def adopt(world: World, rows: int) -> list[Operation[Any]]:
    held = await world.attempts(rows, running=False)
    return [
        Adopt(agent_id, 2, ((attempt, False), ("unknown", True)), world.now) for agent_id, attempt in held
    ]


async def lease(world: World, rows: int) -> list[Operation[Any]]:
    ids = await world.registered(rows)
    await world.tasks(ids)
    return [Lease(agent_id, 1, 4, world.now) for agent_id in ids]


async def accept(world: World, rows: int) -> list[Operation[Any]]:
    return [
        Accept(agent_id, attempt, world.now)
        for agent_id, attempt in await world.attempts(rows, running=False)
    ]


async def progress(world: World, rows: int) -> list[Operation[Any]]:
    return [
        Progress(agent_id, attempt, 5, "five", world.now)
        for agent_id, attempt in await world.attempts(rows, running=True)
    ]


async def append(world: World, rows: int) -> list[Operation[Any]]:
    return [
        AppendOutput(agent_id, attempt, Chunk(1, 0, b"x"))
        for agent_id, attempt in await world.attempts(rows, running=True)
    ]


async def finish(world: World, rows: int) -> list[Operation[Any]]:
    return [
        Finish(agent_id, attempt, Outcome.SUCCEEDED, "", b"", b"", (0, 0, 0), world.now)
        for agent_id, attempt in await world.attempts(rows, running=True)
    ]


async def observe(world: World, rows: int) -> list[Operation[Any]]:
    seen = [event_row(DeliveryEvent.SENT, world.name(), None, "a0", world.now) for _ in range(rows)]
    return [Observe(seen)]


async def store_batches(world: World, rows: int) -> list[Operation[Any]]:
    return [world.batch_of_points(agent_id, world.name(), MANY) for agent_id in await world.registered(rows)]


async def use_certificates(world: World, rows: int) -> list[Operation[Any]]:
    renewed = []
    for agent in await world.enrolled(rows):
        identity = await agent.renew(agent.connect())
        renewed.append(UseCertificate(agent.agent_id, f"{identity.serial_number:x}", world.now))
        await agent.close()
    return list(renewed)


async def adopt_certificates(world: World, rows: int) -> list[Operation[Any]]:
    day = 86_400_000_000
    return [
        AdoptCertificate(agent_id, f"{next(world.numbers):x}", world.now - 1, world.now + day, world.now)
        for agent_id in await world.registered(rows)
    ]


GROUPS: dict[type, tuple[Cost, Operations]] = {
    OpenSession: (Cost(3, 1), open_sessions),
    ChangePresence: (Cost(3, 1), change_presences),
    Create: (Cost(6, 1), create),
    Adopt: (Cost(6, 1), adopt),
    Lease: (Cost(5, 1), lease),
    Accept: (Cost(5, 1), accept),
    Progress: (Cost(3, 1), progress),
    AppendOutput: (Cost(3, 1), append),
    Finish: (Cost(5, 1), finish),
    Observe: (Cost(1, 1), observe),
    StoreBatch: (Cost(4, 1), store_batches),
    AdoptCertificate: (Cost(5, 1), adopt_certificates),
    UseCertificate: (Cost(3, 1), use_certificates),
}


async def test_every_operation_of_the_writer_has_a_budget(world: World) -> None:
    assert set(GROUPS) == set(world.writer._appliers)


@pytest.mark.parametrize("rows", [1, MANY])
@pytest.mark.parametrize("kind", GROUPS, ids=lambda kind: kind.__name__)
async def test_a_group_commit_issues_its_statements_and_no_more(world: World, kind: type, rows: int) -> None:
    budget, make = GROUPS[kind]
    operations = await make(world, rows)
    assert {type(operation) for operation in operations} == {kind}

    async def ready(world: World, rows: int) -> Doing:
        del rows
        return lambda: world.submit(operations)

    await check(world, budget, ready, rows)
