from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from certs import requests
from controlplane.callers import Caller
from controlplane.errors import InvalidArgument, ServiceError
from controlplane.identity import service
from controlplane.identity.records import Revocation
from controlplane.identity.rules import CertificateState
from tests.unit.identity.world import ADMIN, LIFE, World, caller_of


async def refused(world: World, caller: Caller) -> str:
    with pytest.raises(ServiceError) as caught:
        await world.identity.admit(caller)
    return caught.value.reason


async def renewed(world: World, caller: Caller, request: bytes | None = None) -> Caller:
    der = requests.good("node-1").der if request is None else request
    return caller_of(await world.identity.renew(caller, der))


async def states(world: World) -> list[CertificateState]:
    rows = (await world.contents())["certificates"]
    return sorted(CertificateState(row[3]) for row in rows)


async def test_both_certificates_are_good_until_the_next_one_is_used(world: World) -> None:
    first = caller_of((await world.enroll()).certificate)
    await renewed(world, first)
    assert await world.identity.admit(first) is False
    assert await states(world) == [CertificateState.NEXT, CertificateState.CURRENT]


async def test_the_first_use_of_the_next_certificate_supersedes_the_former(world: World) -> None:
    first = caller_of((await world.enroll()).certificate)
    second = await renewed(world, first)
    assert await world.identity.admit(second) is True
    assert await world.identity.admit(second) is False
    assert await refused(world, first) == "CERTIFICATE_REVOKED"
    assert await states(world) == [CertificateState.CURRENT, CertificateState.SUPERSEDED]


async def test_the_next_certificate_used_by_many_streams_at_once_is_promoted_once(world: World) -> None:
    second = await renewed(world, caller_of((await world.enroll()).certificate))
    outcomes = await asyncio.gather(*(world.identity.admit(second) for _ in range(6)))
    assert sorted(outcomes) == [False] * 5 + [True]


async def test_a_renewal_sent_again_gives_the_same_certificate(world: World) -> None:
    first = caller_of((await world.enroll()).certificate)
    request = requests.good("node-1").der
    issued = await world.identity.renew(first, request)
    before = await world.contents()
    assert await world.identity.renew(first, request) == issued
    assert await world.contents() == before


async def test_a_renewal_with_another_key_replaces_the_next_certificate_that_was_not_used(
    world: World,
) -> None:
    first = caller_of((await world.enroll()).certificate)
    lost = await renewed(world, first)
    kept = await renewed(world, first)
    assert await refused(world, lost) == "CERTIFICATE_REVOKED"
    assert await world.identity.admit(first) is False
    assert await world.identity.admit(kept) is True


async def test_a_renewal_by_the_next_certificate_is_its_first_use(world: World) -> None:
    first = caller_of((await world.enroll()).certificate)
    second = await renewed(world, first)
    third = await renewed(world, second)
    assert await refused(world, first) == "CERTIFICATE_REVOKED"
    assert await world.identity.admit(second) is False
    assert await world.identity.admit(third) is True


async def test_a_superseded_certificate_cannot_renew_itself(world: World) -> None:
    first = caller_of((await world.enroll()).certificate)
    await world.identity.admit(await renewed(world, first))
    before = await world.contents()
    with pytest.raises(ServiceError) as caught:
        await renewed(world, first)
    assert caught.value.reason == "CERTIFICATE_REVOKED"
    assert await world.contents() == before


async def test_an_expired_certificate_cannot_renew_itself(world: World) -> None:
    first = caller_of((await world.enroll()).certificate)
    world.clock.turn(LIFE + timedelta(seconds=1))
    with pytest.raises(ServiceError) as caught:
        await renewed(world, first)
    assert caught.value.reason == "CERTIFICATE_EXPIRED"


async def test_a_renewal_needs_a_fresh_key(world: World) -> None:
    request = requests.good("node-1").der
    first = caller_of((await world.enroll(csr=request)).certificate)
    before = await world.contents()
    with pytest.raises(InvalidArgument) as caught:
        await renewed(world, first, request)
    assert [violation.field for violation in caught.value.violations] == ["certificate_signing_request"]
    assert await world.contents() == before


@pytest.mark.parametrize("kind", sorted(requests.BAD_REQUESTS))
async def test_a_renewal_with_a_bad_request_changes_nothing(world: World, kind: str) -> None:
    first = caller_of((await world.enroll()).certificate)
    before = await world.contents()
    with pytest.raises(InvalidArgument):
        await renewed(world, first, requests.BAD_REQUESTS[kind]("node-1").der)
    assert await world.contents() == before


async def test_a_certificate_lets_in_through_its_last_second_and_not_after(world: World) -> None:
    first = caller_of((await world.enroll()).certificate)
    world.clock.turn(LIFE)
    assert await world.identity.admit(first) is False
    world.clock.turn(timedelta(microseconds=1))
    assert await refused(world, first) == "CERTIFICATE_EXPIRED"


async def test_a_fleet_that_renews_at_half_life_is_never_without_a_certificate(world: World) -> None:
    present = (await world.enroll()).certificate
    for _ in range(10):
        world.clock.time += timedelta(microseconds=present.renew_after - world.now)
        assert await world.identity.admit(caller_of(present)) is False
        present = await world.identity.renew(caller_of(present), requests.good("node-1").der)
        assert await world.identity.admit(caller_of(present)) is True


async def test_a_certificate_that_this_server_never_issued_is_refused(world: World) -> None:
    first = caller_of((await world.enroll()).certificate)
    assert await refused(world, replace(first, serial="abcdef")) == "CERTIFICATE_REVOKED"


async def test_the_certificate_of_another_agent_is_refused(world: World) -> None:
    first = caller_of((await world.enroll()).certificate)
    assert await refused(world, replace(first, name="node-2")) == "CERTIFICATE_REVOKED"


async def test_deleting_an_agent_denies_all_its_certificates_once_it_is_durable(world: World) -> None:
    first = caller_of((await world.enroll()).certificate)
    second = await renewed(world, first)
    told: list[Revocation] = []
    world.identity.after_revoke.append(told.append)
    await world.agents.delete("node-1", etag="", caller=ADMIN)
    assert await refused(world, first) == "CERTIFICATE_REVOKED"
    assert await refused(world, second) == "CERTIFICATE_REVOKED"
    assert [set(revocation.serials) for revocation in told] == [{first.serial, second.serial}]


async def test_a_denial_that_is_rolled_back_denies_no_one(world: World) -> None:
    first = caller_of((await world.enroll()).certificate)

    async def deny_and_fail() -> None:
        async with world.database.unit_of_work() as work:
            await world.identity.deny_agent(work, "node-1", "a test", world.clock.now())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await deny_and_fail()
    assert not world.identity.is_denied(first.serial)
    assert await world.identity.admit(first) is False


async def test_denials_are_known_again_after_a_restart(world: World) -> None:
    first = caller_of((await world.enroll()).certificate)
    await world.agents.delete("node-1", etag="", caller=ADMIN)
    lost = (await world.issued("lost-laptop")).identity.serial
    await world.identity.administrators.revoke(ADMIN, lost)
    world.identity._denied.clear()
    await world.identity.load()
    assert world.identity.is_denied(first.serial)
    assert world.identity.is_denied(lost)


async def test_an_operator_is_admitted_until_denied_or_expired(world: World) -> None:
    made = (await world.issued("day-shift")).identity
    operator = replace(ADMIN, name=made.name, serial=made.serial, not_after=made.expire_time)
    assert await world.identity.admit(operator) is False
    world.clock.turn(timedelta(days=366))
    assert await refused(world, operator) == "CERTIFICATE_EXPIRED"
    await world.identity.administrators.revoke(ADMIN, operator.serial)
    assert await refused(world, operator) == "CERTIFICATE_REVOKED"


async def test_the_sweep_forgets_certificates_long_after_their_end_and_no_others(world: World) -> None:
    await world.enroll("node-1")
    await world.agents.delete("node-1", etag="", caller=ADMIN)
    world.clock.turn(timedelta(days=31))
    second = caller_of((await world.enroll("node-2")).certificate, "node-2")
    assert await world.identity.sweep() == 1
    assert await world.identity.admit(second) is False
    assert not world.identity._denied


async def test_many_certificates_are_forgotten_over_many_transactions(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "FORGET_STEP", 2)
    for number in range(5):
        await world.enroll(f"node-{number}")
        await world.agents.delete(f"node-{number}", etag="", caller=ADMIN)
    world.clock.turn(timedelta(days=31))
    assert await world.identity.sweep() == 5
    assert not world.identity._denied
