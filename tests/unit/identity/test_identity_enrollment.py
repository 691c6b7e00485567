from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
import structlog
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from certs import requests
from controlplane.errors import AlreadyExists, InvalidArgument, ResourceExhausted, ServiceError
from controlplane.identity import rules
from controlplane.identity.records import Revocation
from controlplane.observability.logging import redact
from controlplane.trust.authority import CertificateAuthority
from tests.unit.identity.world import ADMIN, LIFE, START, World, caller_of


async def test_an_enrolled_agent_gets_a_certificate_for_its_spiffe_id_alone(world: World) -> None:
    enrolled = await world.enroll()
    certificate = x509.load_der_x509_certificate(enrolled.certificate.chain[0])
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert enrolled.spiffe_id == "spiffe://fleetwright.local/agent/node-1"
    assert [name.value for name in names] == [enrolled.spiffe_id]
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert world.authority.issued(certificate)
    assert enrolled.agent_addresses == ("server.example.com:7443",)


async def test_the_log_says_which_token_let_an_agent_in(world: World) -> None:
    with structlog.testing.capture_logs(processors=[redact]) as logs:
        token = await world.token()
        await world.enroll(token=token)
        await world.identity.tokens.revoke(ADMIN, token.split(".")[1])
    assert {line["enrollment"] for line in logs} == {token.split(".")[1]}
    assert token.split(".")[2] not in repr(logs)


async def test_renewal_is_due_half_a_life_after_the_issue_though_the_certificate_is_backdated(
    world: World,
) -> None:
    issued = (await world.enroll()).certificate
    assert issued.not_before < world.now
    assert issued.not_after == world.now + LIFE // timedelta(microseconds=1)
    assert issued.renew_after == world.now + LIFE // timedelta(microseconds=2)


async def test_an_enrolled_agent_is_registered_with_the_labels_of_its_token(world: World) -> None:
    await world.enroll(token=await world.token(labels={"site": "north"}))
    agent = await world.agents.get("node-1")
    assert agent.labels == {"site": "north"}
    assert agent.host.hostname == "node-1.example.com"


async def test_an_enrolled_agent_is_admitted(world: World) -> None:
    enrolled = await world.enroll()
    assert await world.identity.admit(caller_of(enrolled.certificate)) is False


async def _unknown(world: World) -> str:
    return rules.JoinToken("a" * 16, bytes(32), world.authority.digest).write()


async def _wrong_secret(world: World) -> str:
    token = rules.read_join_token(await world.token())
    assert token is not None
    return rules.JoinToken(token.token_id, bytes(32), token.root_digest).write()


async def _malformed(world: World) -> str:
    return (await world.token()).replace("fwt1", "fwt2")


async def _expired(world: World) -> str:
    token = await world.token(ttl=timedelta(minutes=1))
    world.clock.turn(timedelta(minutes=1))
    return token


async def _revoked(world: World) -> str:
    token = await world.token()
    await world.identity.tokens.revoke(ADMIN, token.split(".")[1])
    return token


async def _exhausted(world: World) -> str:
    token = await world.token()
    await world.enroll("node-2", token)
    return token


BAD_TOKENS: dict[str, tuple[Callable[[World], Awaitable[str]], str]] = {
    "unknown": (_unknown, "TOKEN_UNKNOWN"),
    "wrong secret": (_wrong_secret, "TOKEN_UNKNOWN"),
    "malformed": (_malformed, "TOKEN_UNKNOWN"),
    "expired": (_expired, "TOKEN_EXPIRED"),
    "revoked": (_revoked, "TOKEN_REVOKED"),
    "exhausted": (_exhausted, "TOKEN_EXHAUSTED"),
}


@pytest.mark.parametrize("csr", [None, b"garbage"], ids=["good request", "bad request"])
@pytest.mark.parametrize("kind", BAD_TOKENS)
async def test_a_bad_token_is_refused_before_the_request_is_looked_at_and_changes_nothing(
    world: World, kind: str, csr: bytes | None
) -> None:
    make, reason = BAD_TOKENS[kind]
    token = await make(world)
    before = await world.contents()
    with pytest.raises(ServiceError) as caught:
        await world.enroll(token=token, csr=csr)
    assert caught.value.reason == reason
    assert token.split(".")[2] not in caught.value.message
    assert await world.contents() == before


async def test_an_unknown_token_and_a_wrong_secret_get_the_very_same_error(world: World) -> None:
    messages = []
    for token in (await _unknown(world), await _wrong_secret(world)):
        with pytest.raises(ServiceError) as caught:
            await world.enroll(token=token)
        messages.append((type(caught.value), caught.value.message, caught.value.metadata))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("kind", sorted(requests.BAD_REQUESTS))
async def test_a_bad_request_changes_nothing_and_leaves_the_token_its_use(world: World, kind: str) -> None:
    token = await world.token()
    before = await world.contents()
    with pytest.raises(InvalidArgument):
        await world.enroll(token=token, csr=requests.BAD_REQUESTS[kind]("node-1").der)
    assert await world.contents() == before
    await world.enroll(token=token)


async def test_an_agent_that_is_enrolled_is_not_replaced_unless_the_token_allows(world: World) -> None:
    await world.enroll()
    token = await world.token(max_uses=5)
    before = await world.contents()
    with pytest.raises(AlreadyExists) as caught:
        await world.enroll(token=token)
    assert caught.value.reason == "AGENT_ALREADY_ENROLLED"
    assert await world.contents() == before


async def test_an_agent_that_is_replaced_loses_its_certificate(world: World) -> None:
    former = await world.enroll()
    told: list[Revocation] = []
    world.identity.after_revoke.append(told.append)
    again = await world.enroll(token=await world.token(allow_reenrollment=True))
    with pytest.raises(ServiceError) as caught:
        await world.identity.admit(caller_of(former.certificate))
    assert caught.value.reason == "CERTIFICATE_REVOKED"
    assert world.identity.is_denied(caller_of(former.certificate).serial)
    assert [revocation.serials for revocation in told] == [(caller_of(former.certificate).serial,)]
    assert await world.identity.admit(caller_of(again.certificate)) is False


async def test_the_same_enrolment_again_gives_the_same_certificate_and_uses_the_token_once(
    world: World,
) -> None:
    token, request = await world.token(), requests.good("node-1").der
    first = await world.enroll(token=token, csr=request)
    before = await world.contents()
    assert await world.enroll(token=token, csr=request) == first
    assert await world.contents() == before


async def test_the_same_enrolment_sent_many_times_at_once_uses_the_token_once(world: World) -> None:
    token, request = await world.token(), requests.good("node-1").der
    answers = await asyncio.gather(*(world.enroll(token=token, csr=request) for _ in range(8)))
    assert len({answer.certificate.chain for answer in answers}) == 1


async def test_an_exhausted_token_gives_another_key_of_the_same_agent_nothing(world: World) -> None:
    token = await world.token(allow_reenrollment=True)
    await world.enroll(token=token)
    with pytest.raises(ResourceExhausted):
        await world.enroll(token=token)


async def test_a_deleted_agent_cannot_come_back_with_the_token_it_used_up(world: World) -> None:
    token, request = await world.token(), requests.good("node-1").der
    await world.enroll(token=token, csr=request)
    await world.agents.delete("node-1", etag="", caller=ADMIN)
    with pytest.raises(ResourceExhausted):
        await world.enroll(token=token, csr=request)


async def test_a_token_with_uses_left_lets_a_deleted_agent_in_again_with_the_same_key(world: World) -> None:
    token, request = await world.token(max_uses=2), requests.good("node-1").der
    first = await world.enroll(token=token, csr=request)
    await world.agents.delete("node-1", etag="", caller=ADMIN)
    again = await world.enroll(token=token, csr=request)
    assert again.certificate.chain != first.certificate.chain
    assert await world.identity.admit(caller_of(again.certificate)) is False


async def test_of_twenty_agents_at_once_exactly_as_many_enrol_as_the_token_allows(world: World) -> None:
    token = await world.token(max_uses=5)
    outcomes = await asyncio.gather(
        *(world.enroll(f"node-{number}", token) for number in range(20)), return_exceptions=True
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, ServiceError)]
    assert len(outcomes) - len(refused) == 5
    assert {error.reason for error in refused} == {"TOKEN_EXHAUSTED"}
    contents = await world.contents()
    assert len(contents["agents"]) == len(contents["certificates"]) == 5


async def test_no_part_of_a_tokens_secret_is_stored(world: World) -> None:
    token = rules.read_join_token(await world.token())
    assert token is not None
    stored = [value for row in (await world.contents())["enrollment_tokens"] for value in row]
    assert token.secret not in stored
    assert rules.secret_digest(token.secret) in stored


async def test_a_certificate_never_outlives_its_root(world: World) -> None:
    world.clock.turn(timedelta(days=3650) - timedelta(seconds=30))
    issued = (await world.enroll()).certificate
    assert issued.not_after == world.now + 30_000_000


async def test_enrolment_under_a_root_that_ended_is_unavailable_and_changes_nothing(world: World) -> None:
    world.clock.turn(timedelta(days=3650))
    token = await world.token()
    before = await world.contents()
    with pytest.raises(ServiceError) as caught:
        await world.enroll(token=token)
    assert caught.value.reason == "UNAVAILABLE"
    assert await world.contents() == before


async def test_the_digest_in_a_join_token_is_the_one_of_the_agents_root(world: World) -> None:
    other = CertificateAuthority.create("Another", "fleetwright.local", START)
    digest = (await world.token()).split(".")[3]
    assert digest == world.authority.digest
    assert digest != other.digest
