"""Sessions, beats and health on a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from controlplane.agents.records import AgentRecord, LiveSession
from controlplane.agents.rules import Editable, Presence, PresenceReason
from controlplane.errors import PermissionDenied, Unauthenticated
from controlplane.storage.location import Location
from controlplane.wakeups import News
from tests.contracts.agents_world import GATEWAY, OPERATOR, World, living, open_world


@pytest_asyncio.fixture
async def world(location: Location) -> AsyncIterator[World]:
    async with open_world(location) as opened:
        await opened.enrol("a1")
        yield opened


def standing(agent: AgentRecord) -> tuple[Presence, PresenceReason]:
    return agent.presence, agent.presence_reason


async def test_a_session_brings_an_agent_online_with_what_it_says_of_itself(world: World) -> None:
    world.clock.advance(60)
    opened = await world.open("a1")
    agent = await world.agents.get("a1")
    assert (opened.epoch, opened.journal_changed, opened.suspected_clone) == (1, False, False)
    assert standing(agent) == (Presence.ONLINE, PresenceReason.SESSION_OPENED)
    assert agent.presence_time == agent.last_seen_time == world.clock.micros()
    assert agent.host.os_name == "Debian GNU/Linux"
    assert agent.task_kinds == ("echo", "script")
    assert agent.clock_offset == -1_500_000
    assert agent.session_epoch == 1
    assert agent.certificate_expire_time == world.clock.micros() + 86_400_000_000


async def test_each_session_takes_the_next_epoch_and_keeps_since_when_it_is_online(world: World) -> None:
    await world.open("a1")
    since = (await world.agents.get("a1")).presence_time
    world.clock.advance(60)
    assert (await world.open("a1", shown=b"n1", handed=b"n2")).epoch == 2
    assert (await world.agents.get("a1")).presence_time == since


async def test_many_sessions_open_together(world: World) -> None:
    names = [f"m{number}" for number in range(50)]
    for name in names:
        await world.enrol(name)
    opened = await asyncio.gather(*(world.open(name) for name in [*names, "a1", *names]))
    assert [session.epoch for session in opened] == [1] * 51 + [2] * 50
    assert (await world.agents.counts())[Presence.ONLINE] == 51


@pytest.mark.parametrize("deleted", [True, False])
async def test_a_session_of_no_enrolled_agent_is_refused_and_its_neighbours_open(
    world: World, deleted: bool
) -> None:
    if deleted:
        await world.enrol("a2")
        await world.agents.delete("a2", etag="", caller=OPERATOR)
    refused, opened = await asyncio.gather(world.open("a2"), world.open("a1"), return_exceptions=True)
    assert isinstance(refused, Unauthenticated)
    assert refused.reason == "CERTIFICATE_REVOKED"
    assert not isinstance(opened, BaseException)


async def test_a_restart_is_noticed_once(world: World) -> None:
    boots = ["b1", "b1", "b2", "b2"]
    assert [(await world.open("a1", boot=boot)).restarted for boot in boots] == [False, False, True, False]


async def test_another_journal_is_noticed(world: World) -> None:
    await world.open("a1")
    assert not (await world.open("a1", shown=b"n1", handed=b"n2")).journal_changed
    assert (await world.open("a1", shown=b"n2", handed=b"n3", journal="j2")).journal_changed


async def test_a_journal_lost_at_a_new_enrolment_is_noticed(world: World) -> None:
    await world.open("a1")
    await world.enrol("a1", replace=True)
    assert (await world.open("a1", journal="j2")).journal_changed


async def test_a_used_up_nonce_is_reported_until_the_agent_is_enrolled_again(world: World) -> None:
    await world.open("a1", handed=b"n1")
    await world.open("a1", shown=b"n1", handed=b"n2")
    await world.open("a1", shown=b"n2", handed=b"n3")
    assert (await world.open("a1", shown=b"n1", handed=b"n4")).suspected_clone
    agent = await world.agents.get("a1")
    assert agent.presence is Presence.ONLINE
    assert agent.suspected_clone
    assert "used up" in agent.presence_detail
    assert not (await world.open("a1", shown=b"n4", handed=b"n5")).suspected_clone
    assert (await world.agents.get("a1")).suspected_clone
    await world.enrol("a1", replace=True)
    assert not (await world.agents.get("a1")).suspected_clone


async def test_a_used_up_nonce_gets_no_session_where_those_are_refused(location: Location) -> None:
    async with open_world(location, refuse_clones=True) as world:
        await world.enrol("a1")
        await world.enrol("a2")
        await world.open("a1", handed=b"n1")
        await world.open("a1", shown=b"n1", handed=b"n2")
        last = await world.open("a1", shown=b"n2", handed=b"n3")
        # In one group with a good one: it is refused alone.
        refused, good = await asyncio.gather(
            world.open("a1", shown=b"n1"), world.open("a2"), return_exceptions=True
        )
        assert isinstance(refused, PermissionDenied)
        assert refused.reason == "CLONE_SUSPECTED"
        assert not isinstance(good, BaseException)
        agent = await world.agents.get("a1")
        assert (agent.suspected_clone, agent.session_epoch) == (True, last.epoch)
        assert "turned away" in agent.presence_detail
        # The one that has the right nonce goes on, suspected or not, also after a crash.
        await world.open("a1", shown=b"n3", handed=b"n4")
        await world.open("a1", shown=b"n3", handed=b"n5")
        cleared = Editable(agent.labels, agent.notes, suspected_clone=False)
        await world.agents.update("a1", paths=["suspected_clone"], sent=cleared, etag="", caller=OPERATOR)
        assert not (await world.agents.get("a1")).suspected_clone
        # Whoever comes first is believed, once.
        assert not (await world.open("a1", shown=b"n1", handed=b"n6")).suspected_clone
        with pytest.raises(PermissionDenied):
            await world.open("a1", shown=b"n4", handed=b"n7")


async def test_the_end_of_an_old_session_changes_nothing(world: World) -> None:
    old = await world.open("a1")
    new = await world.open("a1", shown=b"n1", handed=b"n2")
    lost = (Presence.STALE, PresenceReason.STREAM_LOST)
    assert not await world.report("a1", old.epoch, *lost)
    assert standing(await world.agents.get("a1"))[0] is Presence.ONLINE
    world.clock.advance(5)
    assert await world.report("a1", new.epoch, *lost, "the stream ended")
    agent = await world.agents.get("a1")
    assert standing(agent) == lost
    assert agent.presence_detail == "the stream ended"
    assert agent.presence_time == world.clock.micros()


async def test_the_same_report_again_changes_nothing(world: World) -> None:
    session = await world.open("a1")
    assert await world.report("a1", session.epoch, Presence.OFFLINE, PresenceReason.GOODBYE)
    assert not await world.report("a1", session.epoch, Presence.OFFLINE, PresenceReason.GOODBYE)
    assert not await world.report("a1", session.epoch, Presence.STALE, PresenceReason.STREAM_LOST)
    assert not await world.report("nobody", 1, Presence.STALE, PresenceReason.STREAM_LOST)


async def test_another_reason_for_being_stale_keeps_since_when(world: World) -> None:
    session = await world.open("a1")
    await world.report("a1", session.epoch, Presence.STALE, PresenceReason.HEARTBEAT_LATE)
    since = (await world.agents.get("a1")).presence_time
    world.clock.advance(5)
    assert await world.report("a1", session.epoch, Presence.STALE, PresenceReason.STREAM_LOST)
    assert (await world.agents.get("a1")).presence_time == since


async def test_beats_move_last_seen_forward_only_and_are_no_change(world: World) -> None:
    await world.open("a1")
    before = await world.agents.get("a1")
    now = world.clock.micros()
    await world.agents.record_beats({"a1": now + 5, "nobody": now})
    await world.agents.record_beats({"a1": now + 3})
    after = await world.agents.get("a1")
    assert after.last_seen_time == now + 5
    assert (after.update_time, after.etag) == (before.update_time, before.etag)
    await world.agents.record_beats({})


async def test_health_moves_an_agent_from_online_over_stale_to_offline_and_back(world: World) -> None:
    await world.open("a1")
    live = {"a1": LiveSession(1, world.clock.micros())}
    world.clock.advance(30)
    assert await world.health(live) == []
    world.clock.advance(4)
    (stale,) = await world.health(live)
    assert (stale.after, stale.detail) == (Presence.STALE, "no beat for 34 s; interval 10 s")
    assert await world.health(live) == []
    world.clock.advance(60)
    (offline,) = await world.health(live)
    assert (offline.after, offline.reason) == (Presence.OFFLINE, PresenceReason.SILENT)
    world.clock.advance(1)
    live["a1"] = LiveSession(1, world.clock.micros())
    (resumed,) = await world.health(live)
    agent = await world.agents.get("a1")
    assert standing(agent) == (Presence.ONLINE, PresenceReason.HEARTBEAT_RESUMED)
    assert agent.presence_detail == resumed.detail == "a beat came after 1 s"
    assert agent.presence_time == world.clock.micros()


async def test_an_online_agent_without_a_session_goes_stale_then_offline(world: World) -> None:
    await world.open("a1")
    world.clock.advance(31)
    (stale,) = await world.health({})
    assert (stale.after, stale.reason) == (Presence.STALE, PresenceReason.SERVER_ENDED)
    world.clock.advance(91)
    (offline,) = await world.agents.judge_absent(living(GATEWAY), world.clock.now())
    assert offline.after is Presence.OFFLINE
    assert "the server process that held its session ended" in offline.detail


async def test_who_never_connected_or_said_goodbye_is_left_alone(world: World) -> None:
    await world.enrol("a2")
    session = await world.open("a2")
    await world.report("a2", session.epoch, Presence.OFFLINE, PresenceReason.GOODBYE)
    world.clock.advance(1_000)
    assert await world.health({"a2": LiveSession(session.epoch, world.clock.micros())}) == []
    assert await world.agents.judge_absent(living(), world.clock.now()) == []


async def test_the_sessions_of_a_process_that_is_gone_are_closed(world: World) -> None:
    await world.enrol("a2")
    await world.open("a1")
    await world.open("a2", gateway="g2")
    world.clock.advance(10_000)
    assert await world.close_sessions("g2") == 1
    assert await world.close_sessions("g2") == 0
    agent = await world.agents.get("a1")
    assert standing(agent) == (Presence.STALE, PresenceReason.SERVER_ENDED)
    assert (await world.agents.get("a2")).presence is Presence.ONLINE
    world.clock.advance(80)
    assert await world.agents.judge_absent(living("g2"), world.clock.now()) == []
    assert (await world.open("a1", shown=b"n1", handed=b"n2", gateway="g2")).epoch == 2
    assert (await world.agents.get("a1")).presence is Presence.ONLINE
    assert await world.close_sessions("g2") == 0


async def test_a_process_that_was_taken_for_gone_claims_what_lived_on(world: World) -> None:
    await world.open("a1")
    live = {"a1": LiveSession(1, world.clock.micros())}
    await world.close_sessions("g2")
    world.clock.advance(5)
    (claimed,) = await world.health(live)
    assert (claimed.after, claimed.reason) == (Presence.ONLINE, PresenceReason.HEARTBEAT_RESUMED)
    assert "lived on" in claimed.detail
    assert await world.close_sessions(GATEWAY) == 0
    assert await world.close_sessions("g2") == 1


async def test_a_session_that_has_a_successor_elsewhere_is_named_and_says_nothing_any_more(
    world: World,
) -> None:
    await world.open("a1")
    live = {"a1": LiveSession(1, world.clock.micros())}
    await world.open("a1", shown=b"n1", handed=b"n2", gateway="g2")
    world.clock.advance(1_000)
    found = await world.agents.health_sweep(world.clock.now(), GATEWAY, live)
    assert (found.moved, found.outlived) == ([], {"a1": 2})
    assert (await world.agents.get("a1")).presence is Presence.ONLINE


async def test_of_a_session_that_moved_the_process_before_is_told(world: World) -> None:
    told: list[News] = []

    class Told:
        def carry(self, news: News) -> None:
            told.append(news)

    world.wakeups.carried_by(Told())
    await world.open("a1")
    await world.open("a1", shown=b"n1", handed=b"n2")
    assert not any(news.sessions for news in told)
    await world.open("a1", shown=b"n2", handed=b"n3", gateway="g2")
    assert [news.sessions for news in told if news.sessions] == [{"a1": 3}]


async def test_a_change_wakes_who_listens(world: World) -> None:
    with world.wakeups.listening("agents") as listener:
        session = await world.open("a1")
        assert listener._woken.is_set()
        listener._woken.clear()
        await world.report("a1", session.epoch + 1, Presence.STALE, PresenceReason.STREAM_LOST)
        await world.agents.record_beats({"a1": world.clock.micros()})
        assert not listener._woken.is_set()
