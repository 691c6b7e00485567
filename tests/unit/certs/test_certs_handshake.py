"""Which bad certificates gRPC refuses by itself, and which reach the application, that must refuse them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import grpc
import grpc.aio
import pytest
import pytest_asyncio

from certs.authority import Identity, Root, issue_client, issue_server, make_root
from certs.bad import BAD_CERTIFICATES

REFUSED_IN_THE_HANDSHAKE = {"wrong-root", "expired", "not-yet-valid", "wrong-usage"}
# BoringSSL, inside gRPC, reads the real clock, and takes no other.
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def root() -> Root:
    return make_root("Test agents", now=NOW)


class _Answer(grpc.GenericRpcHandler):
    """Answers every unary call with its own bytes."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        async def answer(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            return request

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest_asyncio.fixture
async def address(root: Root) -> AsyncIterator[str]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([_Answer()])
    own = issue_server(root, now=NOW)
    credentials = grpc.ssl_server_credentials(
        [(own.key_pem, own.chain_pem)], root_certificates=root.pem, require_client_auth=True
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def call(address: str, root: Root, identity: Identity) -> bytes:
    credentials = grpc.ssl_channel_credentials(root.pem, identity.key_pem, identity.chain_pem)
    async with grpc.aio.secure_channel(address, credentials) as channel:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/test/Echo")
        return await method(b"hello", timeout=10)


async def test_a_good_certificate_is_let_in(address: str, root: Root) -> None:
    assert await call(address, root, issue_client(root, "agent", "agent-7", now=NOW)) == b"hello"


@pytest.mark.parametrize("kind", sorted(REFUSED_IN_THE_HANDSHAKE))
async def test_the_handshake_refuses(address: str, root: Root, kind: str) -> None:
    identity = BAD_CERTIFICATES[kind](root, "agent", "agent-7", now=NOW)
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await call(address, root, identity)
    assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("kind", sorted(BAD_CERTIFICATES.keys() - REFUSED_IN_THE_HANDSHAKE))
async def test_the_handshake_lets_through_what_the_application_must_refuse(
    address: str, root: Root, kind: str
) -> None:
    identity = BAD_CERTIFICATES[kind](root, "agent", "agent-7", now=NOW)
    assert await call(address, root, identity) == b"hello"
