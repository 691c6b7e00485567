"""Watching agents, and the handler that serves it all, on a real database."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
import pytest_asyncio
from fleetwright.v1 import agent_registry_service_pb2 as pb2

from controlplane.agents.handler import AgentRegistryHandler
from controlplane.agents.records import AgentChange
from controlplane.agents.rules import Editable
from controlplane.errors import Aborted, InvalidArgument, NotFound
from controlplane.storage.location import Location
from controlplane.storage.watching import Change
from controlplane.transport.context import calling_as
from tests.contracts.agents_world import OPERATOR, World, open_world

Changes = AsyncGenerator[AgentChange, None]

# The handler never looks at it: the caller comes from the context variable.
NO_CONTEXT: Any = None


@pytest_asyncio.fixture
async def world(location: Location) -> AsyncIterator[World]:
    async with open_world(location) as opened:
        yield opened


async def take(changes: Changes, count: int) -> list[tuple[Change, str]]:
    return [(change.change, change.agent_id) for change in [await anext(changes) for _ in range(count)]]


async def label(world: World, agent_id: str, **labels: str) -> None:
    await world.agents.update(agent_id, paths=["labels"], sent=Editable(labels, ""), etag="", caller=OPERATOR)


async def test_a_watch_sends_what_is_then_what_changes(world: World) -> None:
    await world.enrol("a1")
    await world.enrol("a2")
    async with aclosing(world.agents.watch(filter_text="", resume_token="")) as changes:
        existing = [(Change.EXISTING, "a1"), (Change.EXISTING, "a2"), (Change.SYNCED, "")]
        assert await take(changes, 3) == existing
        await world.open("a1")
        opened = await anext(changes)
        assert opened.change is Change.CHANGED
        assert opened.agent is not None
        assert opened.agent.session_epoch == 1
        await world.agents.delete("a2", etag="", caller=OPERATOR)
        await world.enrol("a2")
        assert await take(changes, 1) == [(Change.CHANGED, "a2")]
        await world.agents.delete("a2", etag="", caller=OPERATOR)
        assert await take(changes, 1) == [(Change.REMOVED, "a2")]


async def test_an_agent_that_stops_to_match_is_removed_and_others_are_not_told_of(world: World) -> None:
    await world.enrol("a1", {"site": "berlin"})
    await world.enrol("a2", {"site": "oslo"})
    async with aclosing(world.agents.watch(filter_text="labels.site=berlin", resume_token="")) as changes:
        assert await take(changes, 2) == [(Change.EXISTING, "a1"), (Change.SYNCED, "")]
        await world.open("a2")
        await label(world, "a1", site="oslo")
        assert await take(changes, 1) == [(Change.REMOVED, "a1")]
        await label(world, "a2", site="berlin")
        assert await take(changes, 1) == [(Change.CHANGED, "a2")]


async def test_a_watch_goes_on_where_its_token_says(world: World) -> None:
    await world.enrol("a1")
    async with aclosing(world.agents.watch(filter_text="", resume_token="")) as changes:
        await anext(changes)
        synced = await anext(changes)
    await world.enrol("a2")
    await world.agents.delete("a1", etag="", caller=OPERATOR)
    async with aclosing(world.agents.watch(filter_text="", resume_token=synced.resume_token)) as changes:
        assert await take(changes, 2) == [(Change.CHANGED, "a2"), (Change.REMOVED, "a1")]


async def test_a_watch_out_of_form_ends_at_its_first_step(world: World) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await anext(world.agents.watch(filter_text="", resume_token="x"))
    assert refused.value.violations[0].field == "resume_token"
    with pytest.raises(InvalidArgument, match="unknown field"):
        await anext(world.agents.watch(filter_text="x = 1", resume_token=""))


async def test_the_handler_speaks_the_contract(world: World) -> None:
    handler = AgentRegistryHandler(world.agents)
    await world.enrol("a1", {"site": "berlin"})
    await world.open("a1")
    got = await handler.GetAgent(pb2.GetAgentRequest(name="agents/a1"), NO_CONTEXT)
    assert got.agent.name == "agents/a1"
    assert got.agent.presence == pb2.PRESENCE_ONLINE
    assert got.agent.presence_reason == pb2.PRESENCE_REASON_SESSION_OPENED
    assert got.agent.clock_offset.ToMicroseconds() == -1_500_000
    assert got.agent.last_seen_time.ToMicroseconds() == world.clock.micros()
    listed = await handler.ListAgents(pb2.ListAgentsRequest(filter="labels.site=berlin"), NO_CONTEXT)
    assert list(listed.agents) == [got.agent]
    assert listed.total_size == 1
    update = pb2.UpdateAgentRequest(agent=got.agent)
    update.agent.labels["ring"] = "1"
    update.update_mask.paths.append("labels.ring")
    with calling_as(OPERATOR):
        updated = await handler.UpdateAgent(update, NO_CONTEXT)
        assert dict(updated.agent.labels) == {"site": "berlin", "ring": "1"}
        with pytest.raises(Aborted):
            await handler.UpdateAgent(update, NO_CONTEXT)
        deleted = await handler.DeleteAgent(pb2.DeleteAgentRequest(name="agents/a1"), NO_CONTEXT)
    assert deleted.cancelled_tasks == 0
    with pytest.raises(NotFound):
        await handler.GetAgent(pb2.GetAgentRequest(name="agents/a1"), NO_CONTEXT)


async def test_the_handler_refuses_a_name_out_of_form(world: World) -> None:
    request = pb2.UpdateAgentRequest(agent=pb2.Agent(name="a1"))
    request.update_mask.paths.append("notes")
    with calling_as(OPERATOR), pytest.raises(InvalidArgument, match="agents/<agent id>"):
        await AgentRegistryHandler(world.agents).UpdateAgent(request, NO_CONTEXT)


async def test_the_handler_names_only_the_removed_agent(world: World) -> None:
    await world.enrol("a1", {"site": "berlin"})
    stream = AgentRegistryHandler(world.agents).WatchAgents(pb2.WatchAgentsRequest(), NO_CONTEXT)
    assert (await anext(stream)).change_type == pb2.CHANGE_TYPE_EXISTING
    synced = await anext(stream)
    assert synced.change_type == pb2.CHANGE_TYPE_SYNCED
    assert not synced.HasField("agent")
    await world.agents.delete("a1", etag="", caller=OPERATOR)
    removed = await anext(stream)
    assert removed.change_type == pb2.CHANGE_TYPE_REMOVED
    assert removed.agent == pb2.Agent(name="agents/a1", agent_id="a1")
    assert removed.resume_token
