"""The yardstick: the Heartbeat stream on bare grpc.aio, with nothing of the product behind it.

The same contract, certificates, channel arguments and loop as the product's listener for agents, so
that the same clients drive both, and what differs is the product alone. Started as
``python -m bench.yardstick DATA_FOLDER [PORT [WHEN]]``, where WHEN is the instant of the monotonic clock
at which it begins to listen; it prints its port, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import uvloop
from fleetwright.v1 import agent_service_pb2 as pb2
from google.protobuf.duration_pb2 import Duration

from agent_sim.fleet.machine import allow_connections
from bench.server import end_with_standard_input
from controlplane.settings import Settings
from controlplane.transport.channel_options import agent_listener
from controlplane.trust.layout import load

HOST = "127.0.0.1"


async def heartbeat(_requests: Any, context: Any) -> None:
    """Serve one stream: answer its Hello with a Welcome, and every beat with an acknowledgement."""
    hello = await context.read()
    if hello is grpc.aio.EOF:
        return
    welcome = pb2.Welcome(session_epoch=1, next_nonce=bytes(16), heartbeat_interval=Duration(seconds=10))
    await context.write(pb2.HeartbeatResponse(welcome=welcome))
    while True:
        message = await context.read()
        if message is grpc.aio.EOF or message.HasField("goodbye"):
            return
        acknowledged = pb2.BeatAcknowledged(sequence=message.beat.sequence)
        await context.write(pb2.HeartbeatResponse(beat_acknowledged=acknowledged))


def _handlers() -> grpc.GenericRpcHandler:
    method = grpc.stream_stream_rpc_method_handler(
        heartbeat,
        request_deserializer=pb2.HeartbeatRequest.FromString,
        response_serializer=pb2.HeartbeatResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler("fleetwright.v1.AgentService", {"Heartbeat": method})


async def _serve(folder: Path, port: int, when: float) -> None:
    defaults = Settings(data_dir=folder)
    server = grpc.aio.server(
        options=agent_listener(
            handshake_timeout=defaults.handshake_timeout,
            keepalive=defaults.keepalive_interval,
            ping_timeout=defaults.ping_timeout,
            max_connection_age=defaults.max_connection_age,
            max_connections=20_000,
        )
    )
    server.add_generic_rpc_handlers((_handlers(),))
    trust = load(folder)
    credentials = grpc.ssl_server_credentials(
        [(trust.server_key_pem, trust.agents_chain_pem)], trust.agents.certificate_pem, True
    )
    await asyncio.sleep(when - time.monotonic())
    port = server.add_secure_port(f"{HOST}:{port}", credentials)
    await server.start()
    print(json.dumps({"agents": port}), flush=True)
    await server.wait_for_termination()


def main() -> None:
    """Serve until the standard input ends."""
    allow_connections(0)
    threading.Thread(target=end_with_standard_input, daemon=True).start()
    folder, port, when = (*sys.argv[1:], "0", "0")[:3]
    uvloop.run(_serve(Path(folder), int(port), float(when)))


if __name__ == "__main__":
    main()
