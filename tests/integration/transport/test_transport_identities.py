"""Who may come in by which door."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from fleetwright.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    enrollment_service_pb2,
    enrollment_service_pb2_grpc,
    enrollment_token_service_pb2,
    enrollment_token_service_pb2_grpc,
)
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc

from certs.bad import BAD_CERTIFICATES
from controlplane.callers import IdentityKind
from controlplane.transport import errors, standing
from controlplane.transport.context import current_caller
from tests.integration.transport.doors import Doors, ShiftedClock, opened, refusal
from tests.support.logs import logged

LIST = enrollment_token_service_pb2.ListEnrollmentTokensRequest()
RENEW = agent_service_pb2.RenewCertificateRequest(certificate_signing_request=b"x")

# What TLS itself refuses; the client learns only that the connection was closed.
AT_THE_HANDSHAKE = ("wrong-root", "expired", "not-yet-valid", "wrong-usage")
BY_THE_APPLICATION = ("two-uri-sans", "no-uri-san", "another-trust-domain", "weak-key")


def call(doors: Doors, role: str, identity: Any) -> Any:
    if role == "agent":
        return doors.agents_stub(identity).RenewCertificate(RENEW)
    return doors.tokens_stub(role, identity).ListEnrollmentTokens(LIST)


def test_every_kind_of_bad_certificate_is_tried() -> None:
    assert set(BAD_CERTIFICATES) == {*AT_THE_HANDSHAKE, *BY_THE_APPLICATION}


@pytest.mark.parametrize("role", ["agent", "operator"])
async def test_good_certificate_is_let_in(doors: Doors, role: str) -> None:
    await call(doors, role, doors.identity(role))


@pytest.mark.parametrize("role", ["agent", "operator"])
@pytest.mark.parametrize("kind", AT_THE_HANDSHAKE)
async def test_certificate_that_tls_can_judge_is_refused_in_the_handshake(
    doors: Doors, role: str, kind: str
) -> None:
    bad = BAD_CERTIFICATES[kind](doors.root_of(role), role, "one", now=datetime.now(UTC))
    refused = await refusal(call(doors, role, bad))
    assert refused.code is StatusCode.UNAVAILABLE
    listener = "agents" if role == "agent" else "admin"
    assert doors.sample("fleetwright_tls_handshakes_total", listener=listener) >= 1
    await call(doors, role, doors.identity(role))


@pytest.mark.parametrize("role", ["agent", "operator"])
@pytest.mark.parametrize("kind", BY_THE_APPLICATION)
async def test_certificate_that_only_we_can_judge_is_refused_at_the_call(
    doors: Doors, role: str, kind: str
) -> None:
    bad = BAD_CERTIFICATES[kind](doors.root_of(role), role, "one", now=datetime.now(UTC))
    refused = await refusal(call(doors, role, bad))
    assert (refused.code, refused.reason) == (StatusCode.UNAUTHENTICATED, "IDENTITY_INVALID")
    assert doors.sample("fleetwright_refused_total", reason="IDENTITY_INVALID") == 1


async def test_agent_cannot_shake_hands_on_the_admin_port(doors: Doors) -> None:
    channel = doors.channel("agent", port=doors.ports.admin)
    stub: Any = enrollment_token_service_pb2_grpc.EnrollmentTokenServiceStub(channel)
    assert (await refusal(stub.ListEnrollmentTokens(LIST))).code is StatusCode.UNAVAILABLE


async def test_operator_cannot_shake_hands_on_the_agents_port(doors: Doors) -> None:
    channel = doors.channel("operator", port=doors.ports.agents)
    stub: Any = agent_service_pb2_grpc.AgentServiceStub(channel)
    assert (await refusal(stub.RenewCertificate(RENEW))).code is StatusCode.UNAVAILABLE


async def test_agents_root_cannot_make_an_operator(doors: Doors) -> None:
    doors.operators_root, forger = doors.agents_root, doors.operators_root
    identity = doors.identity("operator")
    doors.operators_root = forger
    channel = doors.channel("agent", identity, doors.ports.agents)
    stub: Any = agent_service_pb2_grpc.AgentServiceStub(channel)
    refused = await refusal(stub.RenewCertificate(RENEW))
    assert (refused.code, refused.reason) == (StatusCode.PERMISSION_DENIED, "IDENTITY_NOT_ALLOWED")


async def test_integrator_may_not_list_tokens(doors: Doors) -> None:
    refused = await refusal(doors.tokens_stub("integrator").ListEnrollmentTokens(LIST))
    assert (refused.code, refused.reason) == (StatusCode.PERMISSION_DENIED, "IDENTITY_NOT_ALLOWED")


async def test_refused_call_is_counted_and_logged_before_its_status_goes(
    doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[float] = []

    async def abort(context: Any, error: Exception) -> None:
        counted.append(doors.sample("fleetwright_refused_total", reason="IDENTITY_NOT_ALLOWED"))
        counted.append(lines.getvalue().count('"call ended"'))
        await abort_as_ever(context, error)

    abort_as_ever = errors.abort
    monkeypatch.setattr(errors, "abort", abort)
    with logged() as lines:
        await refusal(doors.tokens_stub("integrator").ListEnrollmentTokens(LIST))
    assert counted == [1, 1]


async def test_denied_serial_is_refused_on_an_open_connection(doors: Doors) -> None:
    identity = doors.identity("agent")
    stub = doors.agents_stub(identity)
    await stub.RenewCertificate(RENEW)
    doors.denied.add(f"{identity.certificate.serial_number:x}")
    refused = await refusal(stub.RenewCertificate(RENEW))
    assert (refused.code, refused.reason) == (StatusCode.UNAUTHENTICATED, "CERTIFICATE_REVOKED")


async def test_certificate_that_expires_is_refused_on_an_open_connection() -> None:
    clock = ShiftedClock()
    async with opened(clock=clock) as doors:
        stub = doors.agents_stub()
        await stub.RenewCertificate(RENEW)
        clock.ahead = timedelta(days=365)
        refused = await refusal(stub.RenewCertificate(RENEW))
    assert (refused.code, refused.reason) == (StatusCode.UNAUTHENTICATED, "CERTIFICATE_EXPIRED")


async def test_certificate_of_the_future_is_refused_by_our_clock() -> None:
    async with opened(clock=ShiftedClock(-timedelta(days=365))) as doors:
        refused = await refusal(doors.agents_stub().RenewCertificate(RENEW))
    assert (refused.code, refused.reason) == (StatusCode.UNAUTHENTICATED, "CERTIFICATE_EXPIRED")


async def test_handler_learns_who_calls(doors: Doors) -> None:
    seen = []

    async def look() -> None:
        seen.append(current_caller())

    doors.tokens.on_list = look
    identity = doors.identity("operator", "alice")
    await doors.tokens_stub("operator", identity).ListEnrollmentTokens(LIST)
    assert (seen[0].kind, seen[0].name) == (IdentityKind.OPERATOR, "alice")
    assert seen[0].serial == f"{identity.certificate.serial_number:x}"


async def test_enrolment_needs_no_certificate(doors: Doors) -> None:
    stub: Any = enrollment_service_pb2_grpc.EnrollmentServiceStub(doors.anonymous())
    request = enrollment_service_pb2.EnrollRequest(
        join_token="t", agent_id="one", certificate_signing_request=b"x"
    )
    answer = await stub.Enroll(request)
    assert answer.spiffe_id.endswith("/agent/one")


@pytest.mark.parametrize("reason", ["CERTIFICATE_EXPIRED", "CERTIFICATE_REVOKED"])
async def test_silent_stream_of_an_administrator_ends_with_its_certificate(
    monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    monkeypatch.setattr(standing, "CHECKED_EVERY", timedelta(milliseconds=5))
    clock = ShiftedClock()
    async with opened(clock=clock) as doors:
        identity = doors.identity("operator")
        stub: Any = health_pb2_grpc.HealthStub(doors.channel("operator", identity))
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        if reason == "CERTIFICATE_EXPIRED":
            clock.ahead = timedelta(days=3650)
        else:
            certificate = x509.load_pem_x509_certificate(identity.chain_pem)
            doors.denied.add(f"{certificate.serial_number:x}")
        refused = await refusal(watch.read())
        assert (refused.code, refused.reason) == (StatusCode.UNAUTHENTICATED, reason)
        assert doors.sample("fleetwright_refused_total", reason=reason) == 1
