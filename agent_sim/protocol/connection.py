"""Channels to the server: their options in one place, their credentials, and the addresses in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from agent_sim.protocol.identity import AgentIdentity

Options = list[tuple[str, int | str]]


@dataclass(frozen=True)
class ChannelOptions:
    """Every channel argument that an agent sets. gRPC ignores unknown names, so a test knows them all."""

    keepalive_time_ms: int = 15_000
    """A silent connection is pinged so often: keeps NAT mappings alive and finds a dead server."""
    ping_timeout_ms: int = 10_000
    """An unanswered ping ends the connection; the argument named keepalive_timeout_ms does not. Together with
    the time before it that is less than the 30 s within which a stopped server is to be noticed."""
    max_receive_message_length: int = 4 * 1024 * 1024
    max_send_message_length: int = 4 * 1024 * 1024
    """An inventory with packages is the largest message."""
    http_proxy: str | None = None
    """``http://host:port``; the environment's proxy never applies by itself."""

    def arguments(self) -> Options:
        """Return them as gRPC takes them."""
        options: Options = [
            ("grpc.keepalive_time_ms", self.keepalive_time_ms),
            ("grpc.http2.ping_timeout_ms", self.ping_timeout_ms),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.max_receive_message_length", self.max_receive_message_length),
            ("grpc.max_send_message_length", self.max_send_message_length),
            # One connection a channel: agents in one process must not share, and a renewal needs a new one.
            ("grpc.use_local_subchannel_pool", 1),
            # Both save memory in every connection; measured.
            ("grpc.http2.bdp_probe", 0),
            ("grpc.tsi.max_frame_size", 2048),
            # The engine decides what is sent again; a transparent retry would hide it.
            ("grpc.enable_retries", 0),
            ("grpc.service_config_disable_resolution", 1),
            ("grpc.enable_http_proxy", 0),
        ]
        if self.http_proxy:
            options[-1] = ("grpc.enable_http_proxy", 1)
            options.append(("grpc.http_proxy", self.http_proxy))
        return options


def agent_channel(address: str, identity: AgentIdentity, http_proxy: str | None = None) -> grpc.aio.Channel:
    """Open a channel to AgentService at ``address`` with the agent's own certificate.

    It connects with the first call. The server's certificate must name the host
    of ``address`` and descend from the identity's trust bundle.
    """
    credentials = grpc.ssl_channel_credentials(
        identity.trust_bundle_pem, identity.key_pem, identity.chain_pem
    )
    options = ChannelOptions(http_proxy=http_proxy)
    return grpc.aio.secure_channel(address, credentials, options=options.arguments())


def enrollment_channel(address: str, root_pem: bytes, http_proxy: str | None = None) -> grpc.aio.Channel:
    """Open a channel to EnrollmentService at ``address`` that trusts ``root_pem`` alone."""
    credentials = grpc.ssl_channel_credentials(root_pem)
    options = ChannelOptions(http_proxy=http_proxy)
    return grpc.aio.secure_channel(address, credentials, options=options.arguments())


class ServerAddresses:
    """The server addresses of an agent, tried in turn."""

    def __init__(self, addresses: Sequence[str]) -> None:
        if not addresses:
            raise ValueError("server addresses: at least one host:port is needed")
        self._addresses = tuple(addresses)
        self._index = 0

    @property
    def current(self) -> str:
        """The address to use now."""
        return self._addresses[self._index]

    def advance(self) -> None:
        """Turn to the next address, because the current one does not answer."""
        self._index = (self._index + 1) % len(self._addresses)
