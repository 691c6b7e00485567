from __future__ import annotations

from datetime import timedelta

import pytest

from certs import requests
from controlplane.errors import InvalidArgument, NotFound, Unauthenticated
from controlplane.identity import tokens
from controlplane.identity.rules import TokenState
from tests.unit.identity.world import ADMIN, World


async def test_a_token_lets_one_agent_in_for_an_hour_unless_told_otherwise(world: World) -> None:
    token = (await world.identity.tokens.create(ADMIN)).token
    assert token.max_uses == 1
    assert token.expire_time - token.create_time == timedelta(hours=1) // timedelta(microseconds=1)
    assert token.creator == ADMIN.spiffe_id
    assert token.state(world.now) is TokenState.ACTIVE


async def test_a_token_that_was_made_does_not_print_its_secret(world: World) -> None:
    made = await world.identity.tokens.create(ADMIN)
    assert made.join_token.split(".")[2] not in repr(made)


async def test_pages_list_every_token_once_newest_first(world: World) -> None:
    made = []
    for number in range(7):
        made.append((await world.identity.tokens.create(ADMIN)).token.token_id)
        world.clock.turn(timedelta(seconds=number % 2))  # some are of the same instant
    listed, page_token = [], ""
    while True:
        page = await world.identity.tokens.list(page_size=2, page_token=page_token)
        assert len(page.tokens) <= 2
        listed += page.tokens
        page_token = page.next_page_token
        if not page_token:
            break
    assert sorted(token.token_id for token in listed) == sorted(made)
    times = [token.create_time for token in listed]
    assert times == sorted(times, reverse=True)


async def test_a_page_token_that_this_server_did_not_make_is_refused(world: World) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await world.identity.tokens.list(page_size=2, page_token="AAAA")
    assert caught.value.reason == "PAGE_TOKEN_INVALID"


async def test_revoking_a_token_twice_keeps_the_first_time(world: World) -> None:
    token_id = (await world.identity.tokens.create(ADMIN)).token.token_id
    first = await world.identity.tokens.revoke(ADMIN, token_id)
    world.clock.turn(timedelta(minutes=1))
    assert await world.identity.tokens.revoke(ADMIN, token_id) == first
    assert first.state(world.now) is TokenState.REVOKED


async def test_revoking_an_unknown_token_says_so(world: World) -> None:
    with pytest.raises(NotFound) as caught:
        await world.identity.tokens.revoke(ADMIN, "a" * 16)
    assert caught.value.reason == "ENROLLMENT_TOKEN_UNKNOWN"
    assert caught.value.message.startswith("name: there is no enrollmentTokens/aaaaaaaaaaaaaaaa; list ")


async def test_agents_that_a_revoked_token_enrolled_stay_enrolled(world: World) -> None:
    token = await world.token(max_uses=2)
    await world.enroll(token=token)
    await world.identity.tokens.revoke(ADMIN, token.split(".")[1])
    assert (await world.agents.get("node-1")).agent_id == "node-1"


async def test_tokens_that_are_over_are_deleted_with_their_uses_and_others_stay(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "PRUNE_STEP", 2)
    used = await world.token(ttl=timedelta(hours=1), max_uses=5)
    for number in range(5):
        await world.enroll(f"node-{number}", used)
    for _ in range(4):
        await world.token(ttl=timedelta(hours=1))
    revoked = (await world.identity.tokens.create(ADMIN, ttl=timedelta(days=300))).token.token_id
    await world.identity.tokens.revoke(ADMIN, revoked)
    long = (await world.identity.tokens.create(ADMIN, ttl=timedelta(days=300))).token.token_id
    world.clock.turn(timedelta(days=30))
    recent = (await world.identity.tokens.create(ADMIN)).token.token_id
    world.clock.turn(timedelta(hours=2))
    assert await world.identity.tokens.prune(world.clock.now() - timedelta(days=30)) == 6
    left = (await world.identity.tokens.list(page_size=0, page_token="")).tokens
    assert [token.token_id for token in left] == [recent, long]
    assert (await world.contents())["enrollment_uses"] == []
    with pytest.raises(Unauthenticated) as caught:
        await world.enroll("node-9", used)
    assert caught.value.reason == "TOKEN_UNKNOWN"


async def test_a_token_that_is_used_up_answers_its_agent_again_until_it_expires(world: World) -> None:
    joined = await world.token(ttl=timedelta(days=40))
    request = requests.good("node-1").der
    first = await world.enroll("node-1", joined, request)
    world.clock.turn(timedelta(seconds=30))
    assert await world.identity.tokens.prune(world.clock.now()) == 0
    assert await world.enroll("node-1", joined, request) == first
