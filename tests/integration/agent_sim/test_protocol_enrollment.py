"""Enrolment: the root by its digest, then the identity."""

from __future__ import annotations

import asyncio
import base64
import random
import socket
from datetime import timedelta

import grpc
import pytest
from cryptography import x509
from fleetwright.v1 import work_pb2

from agent_sim.protocol.enrollment import enroll
from agent_sim.protocol.errors import EnrollmentError
from agent_sim.protocol.join_token import JoinToken
from agent_sim.protocol.root_fetch import fetch_root
from tests.integration.agent_sim.protocol_authority import Authority
from tests.integration.agent_sim.protocol_server import ScriptedServer

FACTS = work_pb2.HostFacts(hostname="h")


def token_for(digest: bytes) -> str:
    return f"fwt1.{'a' * 16}.secret.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


async def test_an_agent_enrols_with_a_key_of_its_own(server: ScriptedServer, authority: Authority) -> None:
    made = await enroll(
        token_for(authority.root_digest), server.enrollment_address, "a1", FACTS, rng=random.Random(1)
    )
    identity = made.identity
    request = server.enrolments[0]
    csr = x509.load_der_x509_csr(request.certificate_signing_request)
    assert csr.subject.rfc4514_string() == "CN=a1"
    assert len(csr.extensions) == 0
    assert made.trusted_root == b""
    assert identity.agent_addresses == (server.address,)
    assert identity.trust_bundle_pem == authority.root_pem
    assert identity.spiffe_id == "spiffe://fleetwright.local/agent/a1"
    assert "PRIVATE" not in repr(identity)


async def test_a_lost_answer_is_asked_for_again_with_the_same_key(
    server: ScriptedServer, authority: Authority
) -> None:
    server.enrolment_errors = [(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")]
    token = token_for(authority.root_digest)
    await enroll(token, server.enrollment_address, "a1", FACTS, rng=random.Random(1))
    first, second = server.enrolments
    assert first.certificate_signing_request == second.certificate_signing_request


async def test_a_refused_token_says_what_to_do_and_not_what_it_is(
    server: ScriptedServer, authority: Authority
) -> None:
    server.enrolment_errors = [(grpc.StatusCode.UNAUTHENTICATED, "TOKEN_UNKNOWN")]
    with pytest.raises(EnrollmentError, match="check that the whole token was copied") as caught:
        await enroll(
            token_for(authority.root_digest), server.enrollment_address, "a1", FACTS, rng=random.Random(1)
        )
    assert caught.value.reason == "TOKEN_UNKNOWN"
    assert not caught.value.retryable
    assert "secret" not in str(caught.value)


async def test_a_server_with_another_root_is_not_trusted(server: ScriptedServer) -> None:
    token = token_for(bytes(32))
    with pytest.raises(EnrollmentError, match="does not show the root that the join token names"):
        await enroll(token, server.enrollment_address, "a1", FACTS, rng=random.Random(1))
    assert server.enrolments == []


async def test_a_server_that_speaks_no_tls_is_told_apart() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hello\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        closed.set()

    closed = asyncio.Event()

    plain = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = plain.sockets[0].getsockname()[1]
    async with plain:
        with pytest.raises(EnrollmentError, match="does not speak TLS"):
            await fetch_root(f"127.0.0.1:{port}", bytes(32))
        await closed.wait()


async def test_a_server_that_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(EnrollmentError, match="no answer within"):
            await fetch_root(f"127.0.0.1:{port}", bytes(32), timedelta(milliseconds=30))


@pytest.mark.parametrize(
    "text", ["", "fwt1.a.b", "fwt2.a.b.c", "fwt1.a.topsecret.short", "fwt1.a.topsecret.€"]
)
def test_a_malformed_token_is_named_without_its_secret(text: str) -> None:
    with pytest.raises(EnrollmentError, match="join token: ") as caught:
        JoinToken.parse(text)
    assert "topsecret" not in str(caught.value)
