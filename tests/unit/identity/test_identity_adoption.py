"""After a restore: who got a certificate that the database does not know is let in, if that was allowed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from certs import requests
from controlplane.callers import Caller, IdentityKind
from controlplane.clock import to_micros
from controlplane.errors import Unauthenticated
from controlplane.identity.rules import may_be_adopted
from controlplane.trust.adoption import Adoption
from controlplane.trust.authority import CertificateAuthority, new_key
from tests.unit.identity.world import ADMIN, DOMAIN, LIFE, START, TurnedClock, World, caller_of, making_world

MINUTE = timedelta(minutes=1)
BACKUP, RESTORE = START + timedelta(hours=1), START + timedelta(hours=2)
LEAVE = Adoption(BACKUP, RESTORE, RESTORE + LIFE)


@pytest.fixture
def authority() -> CertificateAuthority:
    return CertificateAuthority.create("Test agents root", DOMAIN, START)


@asynccontextmanager
async def restored(
    folder: Path, authority: CertificateAuthority, leave: Adoption | None = LEAVE
) -> AsyncIterator[World]:
    """A world in which node-1 enrolled before the backup, a moment after the restore."""
    clock = TurnedClock(BACKUP - MINUTE)
    async with making_world(folder, authority, clock, adoption=leave) as world:
        await world.enroll()
        clock.time = RESTORE + MINUTE
        yield world


def lost(authority: CertificateAuthority, *, minutes: int, agent_id: str = "node-1") -> Caller:
    """Return an agent with a certificate that was issued so long after the backup, and is in no database."""
    issued = BACKUP + minutes * MINUTE
    leaf = authority.sign_client(new_key().public_key(), "agent", agent_id, timedelta(days=1), issued)
    begin, end = to_micros(leaf.not_before), to_micros(leaf.not_after)
    return Caller(
        IdentityKind.AGENT, agent_id, f"spiffe://{DOMAIN}/agent/{agent_id}", leaf.serial, end, begin
    )


async def serials(world: World) -> list[str]:
    return [row[0] for row in (await world.contents())["certificates"]]


async def refused(world: World, caller: Caller) -> str:
    with pytest.raises(Unauthenticated) as caught:
        await world.identity.admit(caller)
    return caught.value.reason


def test_only_before_its_end_and_only_of_before_the_restore() -> None:
    rule = {"restore_time": 10, "until": 20}
    assert may_be_adopted(10, **rule, now=20)
    assert not may_be_adopted(11, **rule, now=20)
    assert not may_be_adopted(10, **rule, now=21)


async def test_without_leave_an_unknown_certificate_is_refused(
    tmp_path: Path, authority: CertificateAuthority
) -> None:
    async with restored(tmp_path, authority, leave=None) as world:
        assert await refused(world, lost(authority, minutes=10)) == "CERTIFICATE_REVOKED"


async def test_with_leave_it_becomes_the_current_one_and_the_one_of_the_backup_is_superseded(
    tmp_path: Path, authority: CertificateAuthority
) -> None:
    async with restored(tmp_path, authority) as world:
        [former] = await serials(world)
        agent = lost(authority, minutes=10)
        assert await world.identity.admit(agent) is True
        assert await world.identity.admit(agent) is False
        assert await refused(world, replace(agent, serial=former)) == "CERTIFICATE_REVOKED"


async def test_who_was_adopted_renews(tmp_path: Path, authority: CertificateAuthority) -> None:
    async with restored(tmp_path, authority) as world:
        agent = lost(authority, minutes=10)
        await world.identity.admit(agent)
        following = caller_of(await world.identity.renew(agent, requests.good("node-1").der))
        assert await world.identity.admit(following) is True
        assert await refused(world, agent) == "CERTIFICATE_REVOKED"


async def test_the_newest_that_is_shown_wins_whichever_comes_first(
    tmp_path: Path, authority: CertificateAuthority
) -> None:
    older, newer = lost(authority, minutes=10), lost(authority, minutes=20)
    async with restored(tmp_path, authority) as world:
        assert await world.identity.admit(older) is True
        assert await world.identity.admit(newer) is True
        assert await refused(world, older) == "CERTIFICATE_REVOKED"
        again = lost(authority, minutes=15)
        assert await refused(world, again) == "CERTIFICATE_REVOKED"


async def test_many_that_come_at_once_are_adopted_together(
    tmp_path: Path, authority: CertificateAuthority
) -> None:
    async with restored(tmp_path, authority) as world:
        world.clock.time = BACKUP - MINUTE
        names = [f"many-{number}" for number in range(9)]
        token = await world.token(max_uses=9)
        for name in names:
            await world.enroll(name, token)
        world.clock.time = RESTORE + MINUTE
        callers = [lost(authority, minutes=10 + turn, agent_id=name) for name in names for turn in (0, 5)]
        admitting = (world.identity.admit(caller) for caller in callers)
        # Of two of one agent the older one is refused where it comes second.
        outcomes = await asyncio.gather(*admitting, return_exceptions=True)
        assert outcomes[1::2] == [True] * 9
        assert [await world.identity.admit(caller) for caller in callers[1::2]] == [False] * 9
        for caller in callers[::2]:
            assert await refused(world, caller) == "CERTIFICATE_REVOKED"


async def test_both_streams_of_one_agent_are_let_in(tmp_path: Path, authority: CertificateAuthority) -> None:
    async with restored(tmp_path, authority) as world:
        agent = lost(authority, minutes=10)
        outcomes = await asyncio.gather(*(world.identity.admit(agent) for _ in range(3)))
        assert sorted(outcomes) == [False, False, True]


async def test_an_agent_that_the_backup_does_not_have_is_refused(
    tmp_path: Path, authority: CertificateAuthority
) -> None:
    async with restored(tmp_path, authority) as world:
        assert await refused(world, lost(authority, minutes=10, agent_id="later")) == "CERTIFICATE_REVOKED"
        await world.agents.delete("node-1", etag="", caller=ADMIN)
        assert await refused(world, lost(authority, minutes=10)) == "CERTIFICATE_REVOKED"


async def test_a_certificate_of_after_the_restore_was_made_with_a_stolen_key(
    tmp_path: Path, authority: CertificateAuthority
) -> None:
    async with restored(tmp_path, authority) as world:
        world.clock.turn(6 * MINUTE)
        assert await refused(world, lost(authority, minutes=66)) == "CERTIFICATE_REVOKED"


async def test_the_leave_ends(tmp_path: Path, authority: CertificateAuthority) -> None:
    async with restored(tmp_path, authority) as world:
        agent = lost(authority, minutes=10)
        world.clock.time = LEAVE.until + timedelta(microseconds=1)
        assert await refused(world, agent) == "CERTIFICATE_REVOKED"


async def test_what_was_revoked_before_the_backup_stays_so(
    tmp_path: Path, authority: CertificateAuthority
) -> None:
    async with restored(tmp_path, authority) as world:
        token = await world.token(allow_reenrollment=True)
        [former] = await serials(world)
        await world.enroll(token=token)
        agent = replace(lost(authority, minutes=10), serial=former)
        assert await refused(world, agent) == "CERTIFICATE_REVOKED"
