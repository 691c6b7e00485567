"""Every gRPC channel argument that a server of ours sets, by name and with its reason.

gRPC ignores unknown names in silence, so they stand here alone, and a test finds
each one in the installed library. Times are in milliseconds, sizes in bytes.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

ChannelOptions = tuple[tuple[str, int], ...]

BDP_PROBE: Final = "grpc.http2.bdp_probe"
"""0: keeps the flow-control window at 64 KiB, so that a client which sends into an unread stream can
make the server hold 63 KiB, not 4 MiB; saves memory for each connection too."""

TSI_MAX_FRAME_SIZE: Final = "grpc.tsi.max_frame_size"
"""Size of a TLS frame's buffer, held for each connection: small, for many idle ones."""

KEEPALIVE_TIME: Final = "grpc.keepalive_time_ms"
"""Interval of HTTP/2 pings; with PING_TIMEOUT it bounds how long a stopped peer stays unseen."""

PING_TIMEOUT: Final = "grpc.http2.ping_timeout_ms"
"""How long a ping may go unanswered. ``grpc.keepalive_timeout_ms`` does not do this: measured, a
stopped client was dropped after 61 s whatever it said."""

KEEPALIVE_WITHOUT_CALLS: Final = "grpc.keepalive_permit_without_calls"
"""1: pings also on connections without a call, which agents hold between two streams."""

MIN_PING_INTERVAL: Final = "grpc.http2.min_ping_interval_without_data_ms"
"""How often a client may ping before it is counted as a strike: agents ping to keep NAT mappings."""

SO_REUSEPORT: Final = "grpc.so_reuseport"
"""0: gRPC sets it by default, and a second server on the same port would bind in silence. 1 on the port for
agents where several gateways share it: the kernel spreads connections over them."""

MAX_PENDING_REQUESTS: Final = "grpc.server.max_pending_requests"
"""Calls that may wait for a stalled event loop; at gRPC's default, 3 s cost a third of 4,000 calls."""

MAX_PENDING_REQUESTS_HARD: Final = "grpc.server.max_pending_requests_hard_limit"
"""Calls that may wait at the very most; see MAX_PENDING_REQUESTS."""

MAX_RECEIVE_MESSAGE: Final = "grpc.max_receive_message_length"
"""A longer message ends its call with RESOURCE_EXHAUSTED before it is read into memory. No handler hears
of it (measured: a unary one is not called, a stream ends as if half-closed), so it can neither be explained
nor counted. It is set a quarter above what we take, and what is between is refused with a reason."""

MAX_SEND_MESSAGE: Final = "grpc.max_send_message_length"
"""The same for what we send: gRPC clients take 4 MiB unless told otherwise."""

MAX_METADATA: Final = "grpc.max_metadata_size"
"""Soft limit of a call's headers; ours are a request id and gRPC's own."""

ABSOLUTE_MAX_METADATA: Final = "grpc.absolute_max_metadata_size"
"""Hard limit of a call's headers."""

MAX_CONCURRENT_STREAMS: Final = "grpc.max_concurrent_streams"
"""Calls that one connection may hold at once; further ones wait in the client."""

OVERLOAD_PROTECTION: Final = "grpc.http.overload_protection"
"""1, gRPC's default: calls that are answered and not yet cleared away count too. Measured: of a client with
as many calls under way as it may have, two of five get REFUSED_STREAM while the event loop is busy."""

HANDSHAKE_TIMEOUT: Final = "grpc.server_handshake_timeout_ms"
"""A TLS handshake not done by then is dropped: gRPC's default of two minutes lets a caller hold files open
at no cost."""

SETTINGS_TIMEOUT: Final = "grpc.http2.settings_timeout"
"""How long a client may leave our HTTP/2 settings unacknowledged after the handshake (milliseconds)."""

MAX_CONNECTION_AGE: Final = "grpc.max_connection_age_ms"
"""Backstop for connections that ignore Reconnect; the handler is not told, so it is long."""

MAX_CONNECTION_AGE_GRACE: Final = "grpc.max_connection_age_grace_ms"
"""What calls in flight get after MAX_CONNECTION_AGE; without it their streams would live on."""

MAX_CONNECTIONS: Final = "grpc.max_allowed_incoming_connections"
"""Connections that a listener holds at most, so that one listener cannot use up the process's files."""

ENABLE_CHANNELZ: Final = "grpc.enable_channelz"
"""1 where channelz is served."""

AGENT_MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""An inventory of packages travels as one result: some hundred bytes for each of up to 10,000 packages."""

ENROLLMENT_MESSAGE_BYTES: Final = 64 * 1024
"""A token, a signing request of at most 4 KiB and facts of the host: anonymous callers get no more."""

ADMIN_MESSAGE_BYTES: Final = 4 * 1024 * 1024
"""A script with its arguments, or a page of 1,000 tasks."""

HEALTH_MESSAGE_BYTES: Final = 4 * 1024
"""A service's name."""

_FRAME_BYTES = 2048
_METADATA_BYTES = 8 * 1024
_PENDING = 20_000
_CLIENT_PING_INTERVAL = timedelta(seconds=5)
_SETTINGS_TIMEOUT = timedelta(seconds=10)
_AGE_GRACE = timedelta(minutes=5)
# Three streams and a renewal, twice over while a new session takes over from the old one.
_AGENT_STREAMS = 16
_ADMIN_STREAMS = 256
_ENROLLMENT_STREAMS = 16


def milliseconds(duration: timedelta) -> int:
    """Return ``duration`` in whole milliseconds, at least one."""
    return max(1, duration // timedelta(milliseconds=1))


def _dropped_above(message_bytes: int) -> int:
    return message_bytes + message_bytes // 4


def _common(
    *,
    message_bytes: int,
    streams: int,
    handshake_timeout: timedelta,
    keepalive: timedelta,
    ping_timeout: timedelta,
    shared: bool = False,
) -> ChannelOptions:
    return (
        (BDP_PROBE, 0),
        (TSI_MAX_FRAME_SIZE, _FRAME_BYTES),
        (KEEPALIVE_TIME, milliseconds(keepalive)),
        (PING_TIMEOUT, milliseconds(ping_timeout)),
        (KEEPALIVE_WITHOUT_CALLS, 1),
        (MIN_PING_INTERVAL, milliseconds(_CLIENT_PING_INTERVAL)),
        (SO_REUSEPORT, int(shared)),
        (MAX_PENDING_REQUESTS, _PENDING),
        (MAX_PENDING_REQUESTS_HARD, 2 * _PENDING),
        (MAX_RECEIVE_MESSAGE, _dropped_above(message_bytes)),
        (MAX_METADATA, _METADATA_BYTES),
        (ABSOLUTE_MAX_METADATA, 2 * _METADATA_BYTES),
        (MAX_CONCURRENT_STREAMS, streams),
        (HANDSHAKE_TIMEOUT, milliseconds(handshake_timeout)),
        (SETTINGS_TIMEOUT, milliseconds(_SETTINGS_TIMEOUT)),
    )


def agent_listener(
    *,
    handshake_timeout: timedelta,
    keepalive: timedelta,
    ping_timeout: timedelta,
    max_connection_age: timedelta,
    max_connections: int,
    shared: bool = False,
) -> ChannelOptions:
    """Return the arguments of the listener for agents: many idle connections, few streams on each.

    ``shared`` lets several processes listen on the port.
    """
    return (
        *_common(
            message_bytes=AGENT_MESSAGE_BYTES,
            streams=_AGENT_STREAMS,
            handshake_timeout=handshake_timeout,
            keepalive=keepalive,
            ping_timeout=ping_timeout,
            shared=shared,
        ),
        (MAX_SEND_MESSAGE, AGENT_MESSAGE_BYTES),
        (MAX_CONNECTION_AGE, milliseconds(max_connection_age)),
        (MAX_CONNECTION_AGE_GRACE, milliseconds(_AGE_GRACE)),
        (MAX_CONNECTIONS, max_connections),
        (ENABLE_CHANNELZ, 0),
    )


def admin_listener(
    *, handshake_timeout: timedelta, keepalive: timedelta, ping_timeout: timedelta, max_connections: int
) -> ChannelOptions:
    """Return the arguments of the listener for administrators: few connections, many calls."""
    return (
        *_common(
            message_bytes=ADMIN_MESSAGE_BYTES,
            streams=_ADMIN_STREAMS,
            handshake_timeout=handshake_timeout,
            keepalive=keepalive,
            ping_timeout=ping_timeout,
        ),
        (MAX_SEND_MESSAGE, ADMIN_MESSAGE_BYTES),
        # It is against strangers who open and reset calls: here are known callers, each with a rate limit.
        (OVERLOAD_PROTECTION, 0),
        (MAX_CONNECTIONS, max_connections),
        (ENABLE_CHANNELZ, 1),
    )


def enrollment_listener(
    *, handshake_timeout: timedelta, keepalive: timedelta, ping_timeout: timedelta, max_connections: int
) -> ChannelOptions:
    """Return the arguments of the listener for enrolment: anonymous callers, small messages."""
    return (
        *_common(
            message_bytes=ENROLLMENT_MESSAGE_BYTES,
            streams=_ENROLLMENT_STREAMS,
            handshake_timeout=handshake_timeout,
            keepalive=keepalive,
            ping_timeout=ping_timeout,
        ),
        (MAX_CONNECTIONS, max_connections),
        (ENABLE_CHANNELZ, 0),
    )


def health_server() -> ChannelOptions:
    """Return the arguments of the health server behind its socket: one caller, tiny messages."""
    return (
        (MAX_RECEIVE_MESSAGE, _dropped_above(HEALTH_MESSAGE_BYTES)),
        (MAX_METADATA, _METADATA_BYTES),
        (ABSOLUTE_MAX_METADATA, 2 * _METADATA_BYTES),
        (MAX_CONCURRENT_STREAMS, _ENROLLMENT_STREAMS),
        (ENABLE_CHANNELZ, 0),
    )
