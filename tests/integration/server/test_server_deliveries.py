"""The ledger and the explanations of a running server, with an agent that speaks the contract by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from fleetwright.v1 import agent_registry_service_pb2 as registry
from fleetwright.v1 import agent_service_pb2 as agents_pb2
from fleetwright.v1 import delivery_service_pb2 as pb2
from fleetwright.v1 import delivery_service_pb2_grpc as pb2_grpc
from fleetwright.v1 import task_service_pb2

from tests.support.admin import Admin
from tests.support.agents import RawAgent, accepted, succeeded
from tests.support.in_process import LocalSite, serving
from tests.support.site import http_get
from tests.support.streams import until

Type = pb2.DeliveryEventType
Code = pb2.ExplanationCode


@pytest.fixture
def delivery(admin: Admin) -> Any:
    """The service, as an operator calls it."""
    return pb2_grpc.DeliveryServiceStub(admin.channel)


async def events(site: LocalSite, delivery: Any, **chosen: Any) -> list[pb2.DeliveryEvent]:
    """Return the events after all that was observed until now was written."""
    assert site.server is not None
    await site.server.gateway.observations.flush()
    response = await delivery.ListDeliveryEvents(pb2.ListDeliveryEventsRequest(**chosen))
    assert not response.next_page_token
    return list(response.events)


def names(found: list[pb2.DeliveryEvent]) -> list[str]:
    return [Type.Name(event.event_type).removeprefix("DELIVERY_EVENT_TYPE_") for event in found]


async def test_the_whole_life_of_a_task_stands_in_the_ledger_in_order(
    site: LocalSite, admin: Admin, agent: RawAgent, delivery: Any
) -> None:
    made = await admin.create(agent.agent_id, b"ping")
    session = await agent.come()
    tasks = await session.tasks()
    await tasks.expect("opened")
    attempt = (await tasks.expect("assignment")).attempt_id
    await tasks.send(accepted=accepted(attempt))
    await tasks.send(finished=succeeded(attempt, b"ping"))
    await tasks.expect("result_acknowledged")
    await tasks.half_close()
    assert (await tasks.ended())[0] is grpc.StatusCode.OK

    found = await events(site, delivery, task=made.name)
    assert names(found) == [
        "CREATED",
        "LEASED",
        "SENT",
        "JOURNALED",
        "RESULT_RECEIVED",
        "COMMITTED",
        "ACKNOWLEDGED",
    ]
    assert {event.task for event in found} == {made.name}
    assert {event.agent for event in found} == {agent.name}
    assert [event.attempt_id for event in found] == ["", *[attempt] * 6]
    times = [event.time.ToMicroseconds() for event in found]
    assert times == sorted(times)
    with_session = {"LEASED", "SENT", "RESULT_RECEIVED", "ACKNOWLEDGED"}
    for event, name in zip(found, names(found), strict=True):
        assert event.session_epoch == (session.epoch if name in with_session else 0), name
    assert [event.detail for event in found] == ["", "attempt 1", "attempt 1", "", "", "SUCCEEDED", ""]
    assert names(await events(site, delivery, agent=agent.name)) == names(found)


async def test_a_result_that_comes_twice_is_suppressed_and_said_so(
    site: LocalSite, admin: Admin, agent: RawAgent, delivery: Any
) -> None:
    made = await admin.create(agent.agent_id, b"ping")
    session = await agent.come()
    tasks = await session.tasks()
    await tasks.expect("opened")
    attempt = (await tasks.expect("assignment")).attempt_id
    await tasks.send(accepted=accepted(attempt))
    for disposition in (agents_pb2.RESULT_DISPOSITION_COMMITTED, agents_pb2.RESULT_DISPOSITION_DUPLICATE):
        await tasks.send(finished=succeeded(attempt, b"ping"))
        assert (await tasks.expect("result_acknowledged")).disposition == disposition
    await tasks.half_close()
    await tasks.ended()

    found = names(await events(site, delivery, task=made.name))
    assert found[4:] == [
        *("RESULT_RECEIVED", "COMMITTED", "ACKNOWLEDGED"),
        *("RESULT_RECEIVED", "DUPLICATE_SUPPRESSED", "ACKNOWLEDGED"),
    ]


async def test_an_attempt_that_was_lost_on_the_way_is_sent_again_and_told_twice(
    site: LocalSite, admin: Admin, agent: RawAgent, delivery: Any
) -> None:
    made = await admin.create(agent.agent_id, b"ping")
    for _ in range(2):
        session = await agent.come()
        tasks = await session.tasks()
        await tasks.expect("opened")
        await tasks.expect("assignment")
        await tasks.half_close()
        await tasks.ended()
        await session.goodbye()
    found = await events(site, delivery, task=made.name, filter="event_type = (LEASED OR SENT)")
    assert names(found) == ["LEASED", "SENT", "SENT"]
    assert len({event.attempt_id for event in found}) == 1
    assert [event.session_epoch for event in found] == [1, 1, 2]


async def test_a_result_of_an_unknown_attempt_leaves_no_event(
    site: LocalSite, agent: RawAgent, delivery: Any
) -> None:
    session = await agent.come()
    tasks = await session.tasks()
    await tasks.expect("opened")
    await tasks.send(finished=succeeded("0" * 32))
    assert (await tasks.expect("result_acknowledged")).disposition == agents_pb2.RESULT_DISPOSITION_REJECTED
    assert await events(site, delivery, agent=agent.name) == []


async def test_pages_of_the_contract_have_every_event_once(
    admin: Admin, agent: RawAgent, delivery: Any
) -> None:
    for number in range(7):
        await admin.create(agent.agent_id, f"{number}".encode())
    found: list[str] = []
    request = pb2.ListDeliveryEventsRequest(agent=agent.name, page_size=3)
    while True:
        page = await delivery.ListDeliveryEvents(request)
        found += [event.task for event in page.events]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert len(found) == len(set(found)) == 7


async def test_a_task_is_explained_from_its_creation_to_its_end(
    admin: Admin, agent: RawAgent, delivery: Any
) -> None:
    made = await admin.create(agent.agent_id, b"ping")

    async def explained() -> tuple[str, list[int]]:
        response = await delivery.ExplainTask(pb2.ExplainTaskRequest(name=made.name))
        assert (response.name, response.agent) == (made.name, agent.name)
        assert response.explanation.HasField("since_time")
        assert all(sentence.text for sentence in response.explanation.because)
        assert response.explanation.next_steps
        state = task_service_pb2.TaskState.Name(response.state).removeprefix("TASK_STATE_")
        return state, [sentence.code for sentence in response.explanation.because]

    assert await explained() == ("QUEUED", [Code.EXPLANATION_CODE_AGENT_NEVER_CONNECTED])
    session = await agent.come()
    assert (await explained())[1] == [Code.EXPLANATION_CODE_NEXT_IN_QUEUE]
    tasks = await session.tasks()
    await tasks.expect("opened")
    attempt = (await tasks.expect("assignment")).attempt_id
    state, codes = await explained()
    assert (state, codes[0], codes[-1]) == (
        "LEASED",
        Code.EXPLANATION_CODE_HANDED_OUT,
        Code.EXPLANATION_CODE_LEASE_HELD,
    )
    await tasks.send(accepted=accepted(attempt))
    await tasks.send(finished=succeeded(attempt, b"ping"))
    await tasks.expect("result_acknowledged")
    assert await explained() == ("SUCCEEDED", [Code.EXPLANATION_CODE_DECIDED_BY_RESULT])


async def test_an_agent_is_explained_with_what_it_has_to_do(
    admin: Admin, agent: RawAgent, delivery: Any
) -> None:
    await admin.create(agent.agent_id, b"one")
    await admin.create(agent.agent_id, b"two")
    session = await agent.come()
    response = await delivery.ExplainAgent(pb2.ExplainAgentRequest(name=agent.name))
    assert (response.name, response.presence) == (agent.name, registry.PRESENCE_ONLINE)
    assert [(one.state, one.count) for one in response.open_counts] == [
        (task_service_pb2.TASK_STATE_QUEUED, 2)
    ]
    assert response.HasField("oldest_create_time")
    texts = [sentence.text for sentence in response.explanation.because]
    assert f"Its session is number {session.epoch}." in texts
    assert "Its journal is journal-1." in texts
    watch = await admin.watch_agents()
    await session.goodbye()
    await until(watch, lambda change: change.agent.presence == registry.PRESENCE_OFFLINE)
    gone = await delivery.ExplainAgent(pb2.ExplainAgentRequest(name=agent.name))
    assert gone.presence == registry.PRESENCE_OFFLINE
    assert gone.explanation.because[0].text.endswith("the agent said goodbye.")


@pytest.mark.parametrize(
    ("method", "request_", "code", "text"),
    [
        (
            "ExplainTask",
            pb2.ExplainTaskRequest(name="tasks/nothing"),
            "NOT_FOUND",
            "name: there is no tasks/nothing",
        ),
        (
            "ExplainAgent",
            pb2.ExplainAgentRequest(name="agents/nobody"),
            "NOT_FOUND",
            "name: there is no agents/nobody",
        ),
        ("ExplainTask", pb2.ExplainTaskRequest(name="first"), "INVALID_ARGUMENT", "name"),
        (
            "ListDeliveryEvents",
            pb2.ListDeliveryEventsRequest(task="tasks/nothing"),
            "NOT_FOUND",
            "task: there is no tasks/nothing",
        ),
        (
            "ListDeliveryEvents",
            pb2.ListDeliveryEventsRequest(filter="event_type = SENDING"),
            "INVALID_ARGUMENT",
            "filter, character",
        ),
        (
            "ListDeliveryEvents",
            pb2.ListDeliveryEventsRequest(page_size=1_001),
            "INVALID_ARGUMENT",
            "page_size",
        ),
    ],
)
async def test_bad_questions_are_refused_by_the_field(
    method: str, request_: Any, code: str, text: str, delivery: Any
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await getattr(delivery, method)(request_)
    assert refused.value.code().name == code
    assert text in (refused.value.details() or "")


async def test_observations_that_are_too_many_are_counted_and_said(
    site: LocalSite, admin: Admin, agent: RawAgent, delivery: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controlplane.tasks.ledger.observing.KEPT", 0)
    made = await admin.create(agent.agent_id, b"ping")
    session = await agent.come()
    tasks = await session.tasks()
    await tasks.expect("opened")
    attempt = (await tasks.expect("assignment")).attempt_id
    await tasks.send(accepted=accepted(attempt))
    await tasks.send(finished=succeeded(attempt, b"ping"))
    await tasks.expect("result_acknowledged")
    await tasks.half_close()
    await tasks.ended()
    assert names(await events(site, delivery, task=made.name)) == [
        "CREATED",
        "LEASED",
        "JOURNALED",
        "COMMITTED",
    ]
    response = await delivery.ListDeliveryEvents(pb2.ListDeliveryEventsRequest(task=made.name))
    assert response.lost_observations == 3
    _, metrics = await http_get(site.ports.health, "/metrics")
    assert "fleetwright_ledger_lost_observations_total 3.0" in metrics


async def test_what_was_observed_is_written_before_the_server_ends(folder: Path) -> None:
    async with serving(folder) as site:
        assert site.server is not None
        site.server.gateway.observations._every = 3_600
        admin = site.admin()
        _, token = await admin.token()
        agent = await site.enroll("node-1", token)
        made = await admin.create(agent.agent_id, b"ping")
        session = await agent.come()
        tasks = await session.tasks()
        await tasks.expect("opened")
        await tasks.expect("assignment")
    async with serving(folder) as site:
        found = await events(site, pb2_grpc.DeliveryServiceStub(site.admin().channel), task=made.name)
    assert "SENT" in names(found)
