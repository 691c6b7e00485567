"""Registration, listing, updating, deleting and selecting agents on a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime

import pytest
import pytest_asyncio
from sqlalchemy import select

from controlplane.agents.rules import Editable, Presence, PresenceReason
from controlplane.agents.store import tables
from controlplane.errors import Aborted, AlreadyExists, InvalidArgument, NotFound, Unauthenticated
from controlplane.storage.location import Location
from controlplane.storage.unit_of_work import UnitOfWork
from tests.contracts.agents_world import OPERATOR, World, open_world


@pytest_asyncio.fixture
async def world(location: Location) -> AsyncIterator[World]:
    async with open_world(location) as opened:
        yield opened


async def names(world: World, filter_text: str) -> list[str]:
    page = await world.agents.list(page_size=0, page_token="", filter_text=filter_text)
    assert page.total_size == len(page.agents)
    return [agent.agent_id for agent in page.agents]


async def selected(world: World, filter_text: str) -> list[str]:
    statement = world.agents.selector(filter_text).statement
    async with world.database.reading() as connection:
        return sorted((await connection.execute(statement)).scalars())


async def test_an_enrolled_agent_is_offline_for_it_never_connected(world: World) -> None:
    assert await world.enrol("a1", {"site": "berlin"})
    agent = await world.agents.get("a1")
    assert agent.labels == {"site": "berlin"}
    assert (agent.presence, agent.presence_reason) == (Presence.OFFLINE, PresenceReason.NEVER_CONNECTED)
    assert agent.enroll_time == agent.update_time == agent.presence_time == world.clock.micros()
    assert agent.last_seen_time is None
    assert agent.certificate_expire_time is None
    assert agent.host.hostname == "a1.example"


async def test_an_id_is_enrolled_once_unless_the_token_may_replace(world: World) -> None:
    await world.enrol("a1", {"site": "berlin", "ring": "1"})
    await world.agents.update("a1", paths=["notes"], sent=Editable({}, "kept"), etag="", caller=OPERATOR)
    with pytest.raises(AlreadyExists) as refused:
        await world.enrol("a1")
    assert refused.value.reason == "AGENT_ALREADY_ENROLLED"
    enrolled = (await world.agents.get("a1")).enroll_time
    world.clock.advance(60)
    assert not await world.enrol("a1", {"ring": "2", "new": "x"}, replace=True)
    agent = await world.agents.get("a1")
    assert agent.labels == {"site": "berlin", "ring": "2", "new": "x"}
    assert (agent.notes, agent.enroll_time) == ("kept", enrolled)


async def test_labels_that_break_a_limit_together_are_refused_and_change_nothing(world: World) -> None:
    await world.enrol("a1", {f"k{number}": "" for number in range(64)})
    before = await world.agents.get("a1")
    with pytest.raises(InvalidArgument) as refused:
        await world.enrol("a1", {"one_more": "x"}, replace=True)
    assert refused.value.violations[0].field == "labels"
    assert await world.agents.get("a1") == before


async def test_a_deleted_agent_is_gone_and_begins_anew_with_a_higher_epoch(world: World) -> None:
    await world.enrol("a1", {"site": "berlin"})
    await world.open("a1")
    assert await world.agents.delete("a1", etag="", caller=OPERATOR) == 0
    with pytest.raises(NotFound) as unknown:
        await world.agents.get("a1")
    assert unknown.value.reason == "AGENT_UNKNOWN"
    assert unknown.value.message.startswith("name: there is no agents/a1; list the agents")
    assert await names(world, "") == []
    assert await selected(world, "*") == []
    assert (await world.agents.counts())[Presence.OFFLINE] == 0
    world.clock.advance(60)
    assert await world.enrol("a1", {"ring": "1"})
    agent = await world.agents.get("a1")
    assert agent.labels == {"ring": "1"}
    assert agent.presence_reason is PresenceReason.NEVER_CONNECTED
    assert agent.enroll_time == world.clock.micros()
    assert agent.agent_version == ""
    opened = await world.open("a1")
    assert (opened.epoch, opened.suspected_clone, opened.journal_changed) == (2, False, False)


async def test_deleting_runs_its_hooks_in_the_transaction_and_its_actions_after_it(world: World) -> None:
    await world.enrol("a1")

    async def cancel_tasks(work: UnitOfWork, agent_id: str, now: datetime) -> int:
        found = await work.connection.execute(select(tables.agents.c.delete_time))
        assert found.scalar_one() is None
        assert (agent_id, now) == ("a1", world.clock.now())
        return 3

    world.agents.on_delete += [cancel_tasks, cancel_tasks]
    assert await world.agents.delete("a1", etag="", caller=OPERATOR) == 6


async def test_a_hook_that_fails_keeps_the_agent(world: World) -> None:
    await world.enrol("a1")

    async def fail(_work: UnitOfWork, _agent_id: str, _now: datetime) -> int:
        raise Unauthenticated("CERTIFICATE_REVOKED", "no")

    world.agents.on_delete.append(fail)
    with pytest.raises(Unauthenticated):
        await world.agents.delete("a1", etag="", caller=OPERATOR)
    assert (await world.agents.get("a1")).agent_id == "a1"


async def test_a_deleted_agent_cannot_be_deleted_or_changed(world: World) -> None:
    await world.enrol("a1")
    await world.agents.delete("a1", etag="", caller=OPERATOR)
    with pytest.raises(NotFound):
        await world.agents.delete("a1", etag="", caller=OPERATOR)
    with pytest.raises(NotFound):
        await world.agents.update("a1", paths=["notes"], sent=Editable({}, ""), etag="", caller=OPERATOR)


async def test_the_etag_changes_with_edits_and_not_with_presence(world: World) -> None:
    await world.enrol("a1")
    etag = (await world.agents.get("a1")).etag
    await world.open("a1")
    assert (await world.agents.get("a1")).etag == etag
    sent = Editable({"ring": "1"}, "")
    updated = await world.agents.update("a1", paths=["labels"], sent=sent, etag=etag, caller=OPERATOR)
    assert updated.labels == {"ring": "1"}
    assert updated.etag != etag
    with pytest.raises(Aborted) as refused:
        await world.agents.update("a1", paths=["labels"], sent=sent, etag=etag, caller=OPERATOR)
    assert refused.value.reason == "ETAG_MISMATCH"
    with pytest.raises(Aborted):
        await world.agents.delete("a1", etag=etag, caller=OPERATOR)


@pytest.mark.parametrize(
    ("paths", "sent", "reason", "field"),
    [
        (["presence"], Editable({}, ""), "FIELD_MASK_INVALID", "update_mask"),
        ([], Editable({}, ""), "FIELD_MASK_INVALID", "update_mask"),
        (["labels"], Editable({"A": ""}, ""), "VALIDATION_FAILED", "agent.labels"),
        (["notes"], Editable({}, "ä" * 2_049), "VALIDATION_FAILED", "agent.notes"),
    ],
)
async def test_an_update_out_of_form_is_refused_and_changes_nothing(
    world: World, paths: list[str], sent: Editable, reason: str, field: str
) -> None:
    await world.enrol("a1", {"site": "berlin"})
    before = await world.agents.get("a1")
    with pytest.raises(InvalidArgument) as refused:
        await world.agents.update("a1", paths=paths, sent=sent, etag="", caller=OPERATOR)
    assert (refused.value.reason, refused.value.violations[0].field) == (reason, field)
    assert await world.agents.get("a1") == before


async def test_pages_follow_each_other_by_name(world: World) -> None:
    for number in (3, 1, 5, 2, 4):
        await world.enrol(f"a{number}", {"parity": str(number % 2)})
    token, seen, totals = "", [], []
    while True:
        page = await world.agents.list(page_size=2, page_token=token, filter_text='labels.parity = "1"')
        seen += [agent.agent_id for agent in page.agents]
        totals.append(page.total_size)
        token = page.next_page_token
        if not token:
            break
    assert seen == ["a1", "a3", "a5"]
    assert totals == [3, 0]


async def test_a_page_of_large_agents_has_fewer_than_asked_for(world: World) -> None:
    large = {f"k{number}": "ä" * 253 for number in range(64)}
    for number in range(70):
        await world.enrol(f"a{number:02}", large)
    first = await world.agents.list(page_size=1_000, page_token="", filter_text="")
    assert 1 <= len(first.agents) < 70
    rest = await world.agents.list(page_size=1_000, page_token=first.next_page_token, filter_text="")
    assert len(first.agents) + len(rest.agents) == 70


async def test_a_page_token_of_another_filter_is_refused(world: World) -> None:
    await world.enrol("a1")
    await world.enrol("a2")
    page = await world.agents.list(page_size=1, page_token="", filter_text="")
    with pytest.raises(InvalidArgument) as refused:
        await world.agents.list(page_size=1, page_token=page.next_page_token, filter_text="a1")
    assert refused.value.reason == "PAGE_TOKEN_INVALID"


@pytest.mark.parametrize(
    ("filter_text", "found"),
    [
        ("", ["a1", "a2", "b1"]),
        ("*", ["a1", "a2", "b1"]),
        ("presence = ONLINE", ["a1"]),
        ("presence != PRESENCE_ONLINE", ["a2", "b1"]),
        ("labels.site = berlin", ["a1", "b1"]),
        ("labels.site != berlin", ["a2"]),
        ("labels:ring AND agent_id = a*", ["a2"]),
        ('hostname = "b1.example" OR os_name = "Debian GNU/Linux"', ["a1", "b1"]),
        ("last_seen_time >= 2024-05-01T12:00:00Z", ["a1"]),
        ("NOT suspected_clone = true AND notes = ''", ["a1", "a2", "b1"]),
        ('enroll_time < "2024-05-01T12:00:00Z"', []),
        ("b1", ["b1"]),
    ],
)
async def test_filters_and_selectors_choose_the_same(
    world: World, filter_text: str, found: list[str]
) -> None:
    await world.enrol("a1", {"site": "berlin"})
    await world.enrol("a2", {"ring": "1"})
    await world.enrol("b1", {"site": "berlin"})
    await world.open("a1")
    assert await names(world, filter_text) == found
    assert await selected(world, filter_text) == found


@pytest.mark.parametrize(
    ("filter_text", "position"), [("presence = ", 11), ("nonce = x", 0), ("labels.a = (", 12)]
)
async def test_a_filter_out_of_form_says_where(world: World, filter_text: str, position: int) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await world.agents.list(page_size=0, page_token="", filter_text=filter_text)
    assert refused.value.reason == "FILTER_INVALID"
    assert refused.value.metadata["position"] == str(position)
    with pytest.raises(InvalidArgument) as refused:
        world.agents.selector(filter_text)
    assert refused.value.violations[0].field == "selector"


async def test_an_unknown_agent_is_required_in_vain(world: World) -> None:
    await world.enrol("a1")
    await world.agents.require(None, "a1", field="agent")
    with pytest.raises(NotFound):
        await world.agents.require(None, "a2", field="agent")
    async with world.database.unit_of_work() as work:
        await world.agents.require(work.connection, "a1", field="agent")
        assert await world.agents.existing_ids(work.connection, ["a1", "a2"]) == {"a1"}


# --- groups


async def group(world: World, agent_id: str, *names_: str) -> None:
    sent = Editable({}, "", groups=tuple(names_))
    await world.agents.update(agent_id, paths=["groups"], sent=sent, etag="", caller=OPERATOR)


async def test_groups_are_replaced_and_leave_the_rest_as_it_is(world: World) -> None:
    await world.enrol("a1", {"site": "berlin"})
    before = await world.agents.get("a1")
    await group(world, "a1", "web", "canary", "web")
    agent = await world.agents.get("a1")
    assert (agent.groups, agent.labels) == (("canary", "web"), {"site": "berlin"})
    assert agent.etag != before.etag
    await world.agents.update("a1", paths=["notes"], sent=Editable({}, "n"), etag="", caller=OPERATOR)
    assert (await world.agents.get("a1")).groups == ("canary", "web")
    await world.enrol("a1", replace=True)
    assert (await world.agents.get("a1")).groups == ("canary", "web")
    await group(world, "a1")
    assert (await world.agents.get("a1")).groups == ()


async def test_agents_are_found_by_their_groups(world: World) -> None:
    for agent_id, groups in {"a1": ("web", "canary"), "a2": ("web",), "a3": ()}.items():
        await world.enrol(agent_id)
        await group(world, agent_id, *groups)
    expected = {
        "groups:web": ["a1", "a2"],
        "groups:canary": ["a1"],
        "NOT groups:canary": ["a2", "a3"],
        "groups:*": ["a1", "a2"],
        "-groups:*": ["a3"],
        "groups:(web AND canary)": ["a1"],
        "groups:(db OR canary)": ["a1"],
        'groups:"can*"': ["a1"],
        "groups:we": [],
    }
    for filter_text, ids in expected.items():
        assert await names(world, filter_text) == ids, filter_text
        assert await selected(world, filter_text) == ids, filter_text


@pytest.mark.parametrize("filter_text", ["groups = web", "groups != web", "groups < web", "groups.web:*"])
async def test_a_set_of_names_is_asked_with_a_colon_alone(world: World, filter_text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await names(world, filter_text)
    assert refused.value.reason == "FILTER_INVALID"


@pytest.mark.parametrize("name", ["", "Web", "a,b", "-a", "a" * 64])
async def test_a_name_of_a_group_out_of_form_is_refused(world: World, name: str) -> None:
    await world.enrol("a1")
    with pytest.raises(InvalidArgument) as refused:
        await group(world, "a1", name)
    assert [violation.field for violation in refused.value.violations] == ["agent.groups"]


async def test_a_deleted_agent_leaves_its_groups(world: World) -> None:
    await world.enrol("a1")
    await group(world, "a1", "web")
    await world.agents.delete("a1", etag="", caller=OPERATOR)
    await world.enrol("a1")
    assert (await world.agents.get("a1")).groups == ()
