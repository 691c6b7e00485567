from __future__ import annotations

from datetime import UTC, datetime, timedelta

import grpc
import pytest
from cryptography import x509
from fleetwright.v1 import enrollment_token_service_pb2 as messages

from certs.requests import BAD_REQUESTS, good
from controlplane.trust import setup
from controlplane.trust.authority import root_digest
from tests.integration.identity.site import Site
from tests.integration.transport.doors import refusal
from tests.unit.identity.world import ADMIN


async def test_the_first_operator_makes_a_token_and_an_agent_enrols_with_it(site: Site) -> None:
    token = await site.join_token(labels={"site": "north"})
    enrolled = await site.enroll(token, good("node-1"))
    assert enrolled.spiffe_id == "spiffe://fleetwright.local/agent/node-1"
    assert list(enrolled.agent_addresses) == ["server.example.com:7443"]
    assert token.split(".")[3] == root_digest(enrolled.certificate.trust_bundle[0])
    certificate = x509.load_der_x509_certificate(enrolled.certificate.chain[0])
    assert enrolled.certificate.not_after.ToDatetime(UTC) == certificate.not_valid_after_utc
    assert enrolled.certificate.not_before.ToDatetime(UTC) == certificate.not_valid_before_utc
    assert (await site.world.agents.get("node-1")).labels == {"site": "north"}


async def test_an_enrolled_agent_renews_and_goes_on_with_either_certificate_until_the_next_is_used(
    site: Site,
) -> None:
    one, two, three = (good("node-1") for _ in range(3))
    first = (await site.enroll(await site.join_token(), one)).certificate
    second = await site.renew(one, first, two)
    assert await site.renew(one, first, two) == second
    await site.renew(two, second, three)
    refused = await refusal(site.renew(one, first, good("node-1")))
    assert refused.code is grpc.StatusCode.UNAUTHENTICATED
    assert refused.reason == "CERTIFICATE_REVOKED"


async def test_an_agent_that_was_deleted_is_refused_at_its_next_call(site: Site) -> None:
    request = good("node-1")
    issued = (await site.enroll(await site.join_token(), request)).certificate
    await site.world.agents.delete("node-1", etag="", caller=ADMIN)
    refused = await refusal(site.renew(request, issued, good("node-1")))
    assert refused.reason == "CERTIFICATE_REVOKED"


@pytest.mark.parametrize("kind", ["csr-wrong-subject", "csr-not-a-request"])
async def test_a_bad_request_names_the_field(site: Site, kind: str) -> None:
    refused = await refusal(site.enroll(await site.join_token(), BAD_REQUESTS[kind]("node-1")))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.reason.startswith("CSR_")
    assert list(refused.fields) == ["certificate_signing_request"]


async def test_an_unknown_token_is_unauthenticated(site: Site) -> None:
    refused = await refusal(site.enroll("fwt1.no.such.token", good("node-1")))
    assert refused.code is grpc.StatusCode.UNAUTHENTICATED
    assert refused.reason == "TOKEN_UNKNOWN"


async def test_a_token_used_up_is_exhausted(site: Site) -> None:
    token = await site.join_token()
    await site.enroll(token, good("node-1"))
    refused = await refusal(site.enroll(token, good("node-2"), "node-2"))
    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refused.reason == "TOKEN_EXHAUSTED"


async def test_a_listing_shows_what_became_of_each_token_and_no_secret(site: Site) -> None:
    used, revoked, fresh = [await site.join_token(description=text) for text in ("a", "b", "c")]
    await site.enroll(used, good("node-1"))
    name = f"enrollmentTokens/{revoked.split('.')[1]}"
    answer = await site.tokens().RevokeEnrollmentToken(messages.RevokeEnrollmentTokenRequest(name=name))
    assert answer.token.HasField("revoke_time")
    page = await site.tokens().ListEnrollmentTokens(messages.ListEnrollmentTokensRequest())
    assert {token.description: token.state for token in page.tokens} == {
        "a": messages.ENROLLMENT_TOKEN_STATE_EXHAUSTED,
        "b": messages.ENROLLMENT_TOKEN_STATE_REVOKED,
        "c": messages.ENROLLMENT_TOKEN_STATE_ACTIVE,
    }
    assert {token.creator for token in page.tokens} == {"spiffe://fleetwright.local/operator/admin"}
    assert all(secret.split(".")[2] not in str(page) for secret in (used, revoked, fresh))


async def test_the_time_of_a_token_may_be_chosen(site: Site) -> None:
    request = messages.CreateEnrollmentTokenRequest()
    request.ttl.FromTimedelta(timedelta(seconds=90, milliseconds=500))
    token = (await site.tokens().CreateEnrollmentToken(request)).token
    assert token.expire_time.ToDatetime() - token.create_time.ToDatetime() == timedelta(seconds=90.5)


async def test_an_integrators_identity_opens_the_door_and_not_the_tokens(site: Site) -> None:
    stub = site.tokens(setup.issue_identity(site.folder, "integrator", "reporting", datetime.now(UTC)))
    refused = await refusal(stub.CreateEnrollmentToken(messages.CreateEnrollmentTokenRequest()))
    assert refused.code is grpc.StatusCode.PERMISSION_DENIED
    assert refused.reason == "IDENTITY_NOT_ALLOWED"


async def test_an_operator_whose_identity_was_revoked_is_refused(site: Site) -> None:
    certificate = x509.load_pem_x509_certificate((site.operator / "cert.pem").read_bytes())
    await site.tokens().ListEnrollmentTokens(messages.ListEnrollmentTokensRequest())
    await site.world.identity.administrators.revoke(ADMIN, f"{certificate.serial_number:x}")
    refused = await refusal(site.tokens().ListEnrollmentTokens(messages.ListEnrollmentTokensRequest()))
    assert refused.code is grpc.StatusCode.UNAUTHENTICATED
    assert refused.reason == "CERTIFICATE_REVOKED"
