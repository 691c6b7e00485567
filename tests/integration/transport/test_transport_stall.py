"""An event loop that stands still: what came meanwhile waits, and is not lost."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import grpc
import pytest
from fleetwright.v1 import agent_service_pb2, agent_service_pb2_grpc, enrollment_token_service_pb2

from tests.integration.transport.doors import HOST, Doors, opened

CONNECTIONS, CALLS = 400, 8
"""As many calls at once as an agent may make, of enough agents to fill a server's queue of its own size."""

STALL = 3.0


def renew(doors: Doors) -> Counter[grpc.StatusCode]:
    """Call from a thread, without an event loop; return how many calls ended how."""
    channels, begun = [], []
    request = agent_service_pb2.RenewCertificateRequest(certificate_signing_request=b"x")
    for number in range(CONNECTIONS):
        identity = doors.identity("agent", f"agent-{number}")
        credentials = grpc.ssl_channel_credentials(
            doors.agents_root.pem, identity.key_pem, identity.chain_pem
        )
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.secure_channel(f"{HOST}:{doors.ports.agents}", credentials, options)
        channels.append(channel)
        stub: Any = agent_service_pb2_grpc.AgentServiceStub(channel)
        begun += [stub.RenewCertificate.future(request, timeout=60) for _ in range(CALLS)]
    codes = Counter(call.code() for call in begun)
    for channel in channels:
        channel.close()
    return codes


async def test_more_calls_at_once_than_a_connection_may_hold_are_all_answered() -> None:
    at_once, in_turn = 400, 5
    codes: Counter[grpc.StatusCode] = Counter()
    async with opened() as doors:
        stub = doors.tokens_stub()
        request = enrollment_token_service_pb2.ListEnrollmentTokensRequest()

        async def busy() -> None:
            # Keeps the loop from clearing away what it has answered.
            time.sleep(0.0005)  # noqa: ASYNC251 # a busy handler
            await asyncio.sleep(0.01)

        async def calls() -> None:
            for _ in range(in_turn):
                call = stub.ListEnrollmentTokens(request)
                codes[await call.code()] += 1

        doors.tokens.on_list = busy
        await asyncio.gather(*(calls() for _ in range(at_once)))
    assert codes == {grpc.StatusCode.OK: at_once * in_turn}


@pytest.mark.slow
async def test_a_loop_that_stands_still_for_three_seconds_costs_no_call() -> None:
    async with opened() as doors:
        calling = asyncio.get_running_loop().run_in_executor(None, renew, doors)
        time.sleep(STALL)  # noqa: ASYNC251 # the stall itself
        codes = await calling
    assert codes == {grpc.StatusCode.OK: CONNECTIONS * CALLS}
