"""What waits for its commit: no more than the limit, and none left at the end."""

from __future__ import annotations

import asyncio

from controlplane.sessions.under_way import UnderWay


async def _until_it_waits() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_is_at_the_limit_waits_until_one_has_ended() -> None:
    under_way = UnderWay(2)
    await under_way.begin()
    await under_way.begin()
    third = asyncio.create_task(under_way.begin())
    await _until_it_waits()
    assert not third.done()
    under_way.end()
    await third


async def test_the_end_waits_for_the_last_one() -> None:
    under_way = UnderWay(2)
    await under_way.begin()
    await under_way.begin()
    end = asyncio.create_task(under_way.none())
    for _ in range(2):
        await _until_it_waits()
        assert not end.done()
        under_way.end()
    await end
    await under_way.none()


async def test_who_gives_up_waiting_leaves_its_place_to_nobody() -> None:
    under_way = UnderWay(1)
    await under_way.begin()
    given_up = asyncio.create_task(under_way.begin())
    await _until_it_waits()
    given_up.cancel()
    await asyncio.gather(given_up, return_exceptions=True)
    under_way.end()
    await under_way.begin()
    last = asyncio.create_task(under_way.none())
    await _until_it_waits()
    assert not last.done()
    under_way.end()
    await last
