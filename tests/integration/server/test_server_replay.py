"""Backlogs of telemetry on the real server: what a stream may have under way, and in whose turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.agents import RawAgent, RawSession
from tests.support.in_process import serving
from tests.support.streams import Stream

RATE = 1_000
"""The least that may be set: a budget of half of it for a lone stream."""


async def opened(agent: RawAgent) -> tuple[RawSession, Stream, Any]:
    session = await agent.come()
    stream = await session.telemetry()
    return session, stream, await stream.expect("opened")


async def test_streams_share_the_budget_and_have_it_back_when_others_leave(folder: Path) -> None:
    async with serving(folder, telemetry_rate=RATE) as site:
        _, token = await site.admin().token(max_uses=2)
        first, second = [await site.enroll(f"node-{number}", token) for number in range(2)]
        session, stream, lone = await opened(first)
        _, other, shared = await opened(second)
        await stream.send(batch=session.batch(1, [1.0] * 10))
        fewer = await stream.expect("acknowledged")
        await other.half_close()
        await other.ended()
        await stream.send(batch=session.batch(11, [1.0] * 10))
        more = await stream.expect("acknowledged")
        assert lone.budget == more.budget == 2 * shared.budget == 2 * fewer.budget
        assert more.last_sequence == 20


async def test_a_backlog_goes_through_whatever_it_is_sent_in(folder: Path) -> None:
    async with serving(folder, telemetry_rate=RATE) as site:
        _, token = await site.admin().token()
        session, stream, _ = await opened(await site.enroll("node-1", token))
        # More than the budget is no offence: what is sent waits for its turn.
        for first in range(1, 901, 300):
            await stream.send(batch=session.batch(first, [1.0] * 300))
        acknowledged = [(await stream.expect("acknowledged")).last_sequence for _ in range(3)]
        assert acknowledged == [300, 600, 900]
        await stream.half_close()
        await stream.ended()
        assert site.server is not None
        assert site.server.gateway._pace.streams == 0
