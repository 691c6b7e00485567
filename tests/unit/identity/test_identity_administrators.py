from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from certs import requests
from controlplane.callers import Caller, IdentityKind
from controlplane.clock import to_micros
from controlplane.errors import FailedPrecondition, InvalidArgument, NotFound, Unauthenticated, Unavailable
from controlplane.identity.records import IdentityRecord
from controlplane.identity.rules import IdentityState, identity_state, locks_everyone_out
from controlplane.trust.authority import BACKDATE
from tests.unit.identity.world import ADMIN, DOMAIN, START, World

DAY = timedelta(days=1)
OTHER = replace(ADMIN, name="night", spiffe_id=f"spiffe://{DOMAIN}/operator/night", serial="0ff1ce")


def caller(identity: IdentityRecord) -> Caller:
    return Caller(identity.kind, identity.name, "", identity.serial, identity.expire_time)


async def listed(world: World) -> list[IdentityRecord]:
    return (await world.identity.administrators.list(page_size=0, page_token="")).identities


# --- rules


@given(st.integers(0, 9), st.none() | st.integers(0, 9), st.integers(0, 9))
def test_an_identity_that_was_revoked_is_nothing_else_and_its_last_second_is_its_own(
    expire_time: int, revoke_time: int | None, now: int
) -> None:
    state = identity_state(expire_time=expire_time, revoke_time=revoke_time, now=now)
    assert (state is IdentityState.REVOKED) == (revoke_time is not None)
    if revoke_time is None:
        assert (state is IdentityState.ACTIVE) == (now <= expire_time)


@pytest.mark.parametrize(
    ("serial", "others", "locked"),
    [("mine", 0, True), ("mine", 1, False), ("another", 0, False), ("another", 1, False)],
)
def test_only_ones_own_identity_with_no_other_operator_locks_everyone_out(
    serial: str, others: int, locked: bool
) -> None:
    assert locks_everyone_out(serial, "mine", others) is locked


# --- issuing


async def test_an_identity_is_issued_for_a_year_unless_told_otherwise(world: World) -> None:
    made = await world.issued("ticketing", IdentityKind.INTEGRATOR)
    certificate = x509.load_pem_x509_certificate(made.certificate_pem)
    assert certificate.not_valid_after_utc == START + 365 * DAY
    assert made.root_pem == world.operators.certificate_pem
    assert world.operators.issued(certificate)
    [record] = await listed(world)
    assert record == made.identity
    assert record.creator == ADMIN.spiffe_id
    assert record.state(world.now) is IdentityState.ACTIVE


async def test_the_time_of_an_identity_may_be_chosen_and_ends_with_the_root(world: World) -> None:
    short = await world.issued("short", ttl=timedelta(minutes=1))
    assert short.identity.expire_time == world.now + 60_000_000
    world.clock.turn(3649 * DAY)
    long = await world.issued("long", ttl=3 * 365 * DAY)
    assert long.identity.expire_time == to_micros(START + 3650 * DAY)
    world.clock.turn(2 * DAY)
    with pytest.raises(Unavailable, match="an operator must make a new one"):
        await world.issued("late")


async def test_a_name_may_have_the_next_certificate_before_the_former_ends(world: World) -> None:
    first, second = await world.issued("ticketing"), await world.issued("ticketing")
    assert first.identity.serial != second.identity.serial
    await world.identity.administrators.revoke(ADMIN, first.identity.serial)
    states = {record.serial: record.state(world.now) for record in await listed(world)}
    assert states == {
        first.identity.serial: IdentityState.REVOKED,
        second.identity.serial: IdentityState.ACTIVE,
    }


@pytest.mark.parametrize("kind", sorted(requests.BAD_REQUESTS))
async def test_a_bad_request_is_refused_as_an_agents_is_and_issues_nothing(world: World, kind: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await world.identity.administrators.issue(
            ADMIN, IdentityKind.OPERATOR, "night", requests.BAD_REQUESTS[kind]("night").der
        )
    assert caught.value.reason.startswith("CSR_")
    assert await listed(world) == []


async def test_a_request_may_name_the_identity_itself_and_not_an_agent_of_that_name(world: World) -> None:
    issue = world.identity.administrators.issue
    agent = requests.good_with_spiffe_id("night").der
    with pytest.raises(InvalidArgument, match=f"exactly spiffe://{DOMAIN}/operator/night"):
        await issue(ADMIN, IdentityKind.OPERATOR, "night", agent)


# --- listing


async def test_pages_list_every_identity_once_newest_first(world: World) -> None:
    made = []
    for number in range(7):
        made.append((await world.issued(f"one-{number}")).identity.serial)
        world.clock.turn(timedelta(seconds=number % 2))  # some are of the same instant
    found: list[IdentityRecord] = []
    page_token = ""
    while True:
        page = await world.identity.administrators.list(page_size=2, page_token=page_token)
        assert len(page.identities) <= 2
        found += page.identities
        page_token = page.next_page_token
        if not page_token:
            break
    assert sorted(record.serial for record in found) == sorted(made)
    times = [record.create_time for record in found]
    assert times == sorted(times, reverse=True)


async def test_a_page_token_of_another_listing_is_refused(world: World) -> None:
    for number in range(2):
        await world.token(description=str(number))
    foreign = (await world.identity.tokens.list(page_size=1, page_token="")).next_page_token
    with pytest.raises(InvalidArgument) as caught:
        await world.identity.administrators.list(page_size=1, page_token=foreign)
    assert caught.value.reason == "PAGE_TOKEN_INVALID"


# --- revoking


async def test_a_revoked_identity_is_denied_and_stays_so(world: World) -> None:
    serial = (await world.issued("night")).identity.serial
    first = await world.identity.administrators.revoke(ADMIN, serial)
    assert first.state(world.now) is IdentityState.REVOKED
    assert world.identity.is_denied(serial)
    world.clock.turn(DAY)
    assert await world.identity.administrators.revoke(OTHER, serial) == first


async def test_revoking_an_unknown_identity_says_how_to_find_one(world: World) -> None:
    with pytest.raises(NotFound, match=r"no identities/abc; list the identities") as caught:
        await world.identity.administrators.revoke(ADMIN, "abc")
    assert caught.value.reason == "IDENTITY_UNKNOWN"


async def test_the_last_operator_cannot_revoke_itself(world: World) -> None:
    mine = (await world.issued("first")).identity
    expired = (await world.issued("expired", ttl=timedelta(minutes=1))).identity
    revoked = (await world.issued("revoked")).identity
    await world.issued("ticketing", IdentityKind.INTEGRATOR)
    world.clock.turn(timedelta(minutes=2))
    await world.identity.administrators.revoke(caller(mine), revoked.serial)
    with pytest.raises(FailedPrecondition, match="issue another one first") as caught:
        await world.identity.administrators.revoke(caller(mine), mine.serial)
    assert caught.value.reason == "OPERATOR_LAST"
    assert not world.identity.is_denied(mine.serial)
    await world.issued("second")
    await world.identity.administrators.revoke(caller(mine), mine.serial)
    assert world.identity.is_denied(mine.serial)
    assert not world.identity.is_denied(expired.serial)


async def test_two_operators_who_revoke_each_other_at_once_leave_one(world: World) -> None:
    one, two = (await world.issued("one")).identity, (await world.issued("two")).identity
    revoke = world.identity.administrators.revoke
    results = await asyncio.gather(
        revoke(caller(one), two.serial), revoke(caller(two), one.serial), return_exceptions=True
    )
    [refused] = [result for result in results if isinstance(result, Unauthenticated)]
    assert refused.reason == "CERTIFICATE_REVOKED"
    assert sum(world.identity.is_denied(identity.serial) for identity in (one, two)) == 1


async def test_one_who_was_revoked_meanwhile_issues_nothing(world: World) -> None:
    mine = (await world.issued("mine")).identity
    await world.identity.administrators.revoke(ADMIN, mine.serial)
    with pytest.raises(Unauthenticated):
        await world.identity.administrators.issue(
            caller(mine), IdentityKind.OPERATOR, "back-door", requests.good("back-door").der
        )
    assert [record.name for record in await listed(world)] == ["mine"]


# --- identities that were issued offline


async def test_one_that_was_issued_offline_is_known_from_its_first_call_on(world: World) -> None:
    issued = START - DAY
    offline = replace(OTHER, not_before=to_micros(issued - BACKDATE), not_after=to_micros(START + DAY))
    for _ in range(3):
        world.identity.administrators.seen(offline)
    [record] = await listed(world)
    assert record == IdentityRecord(
        "0ff1ce", IdentityKind.OPERATOR, "night", "", to_micros(issued), offline.not_after
    )
    await world.identity.administrators.revoke(ADMIN, "0ff1ce")
    assert world.identity.is_denied("0ff1ce")


async def test_one_that_was_seen_a_moment_ago_can_be_revoked(world: World) -> None:
    world.identity.administrators.seen(OTHER)
    assert (await world.identity.administrators.revoke(ADMIN, OTHER.serial)).name == "night"


async def test_what_was_recorded_is_not_written_again_after_a_restart(world: World) -> None:
    made = (await world.issued("mine")).identity
    world.identity.administrators.seen(OTHER)
    assert await world.identity.administrators.record() == 1
    world.identity.administrators._known.clear()
    await world.identity.load()
    for known in (OTHER, caller(made)):
        world.identity.administrators.seen(known)
    assert await world.identity.administrators.record() == 0
    assert (await listed(world))[0].creator == ADMIN.spiffe_id


async def test_a_record_that_could_not_be_written_is_written_later(world: World) -> None:
    world.identity.administrators.seen(OTHER)

    async def record_and_fail() -> None:
        async with world.database.unit_of_work() as work:
            await world.identity.administrators._record(work)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await record_and_fail()
    assert await world.identity.administrators.record() == 1


async def test_agents_are_not_recorded_as_administrators(world: World) -> None:
    world.identity.administrators.seen(replace(OTHER, kind=IdentityKind.AGENT))
    assert await world.identity.administrators.record() == 0


async def test_the_sweep_forgets_identities_and_their_denials_long_after_their_end(world: World) -> None:
    short = (await world.issued("short", ttl=timedelta(minutes=1))).identity
    kept = (await world.issued("kept")).identity
    await world.identity.administrators.revoke(ADMIN, short.serial)
    world.clock.turn(29 * DAY)
    assert await world.identity.sweep() == 0
    world.clock.turn(2 * DAY)
    assert await world.identity.sweep() == 2
    assert [record.serial for record in await listed(world)] == [kept.serial]
    assert not world.identity.is_denied(short.serial)


async def test_a_clock_that_was_ahead_at_the_start_lets_no_revoked_identity_back_in(world: World) -> None:
    revoked = (await world.issued("revoked", ttl=timedelta(hours=1))).identity
    await world.identity.administrators.revoke(ADMIN, revoked.serial)
    world.clock.turn(DAY)
    world.identity._denied.clear()  # what a restart does
    await world.identity.load()
    world.clock.turn(-DAY)
    assert world.identity.is_denied(revoked.serial)
