"""Connecting to a server: an identity from its folder, and a channel with mutual TLS.

    from pathlib import Path

    from fleetwright.client import Identity, connect
    from fleetwright.v1 import agent_registry_service_pb2 as agents_pb2
    from fleetwright.v1 import agent_registry_service_pb2_grpc as agents_pb2_grpc

    with connect("fleet.example.org:7444", Identity.load(Path("operator-admin"))) as channel:
        agents = agents_pb2_grpc.AgentRegistryServiceStub(channel)
        page = agents.ListAgents(agents_pb2.ListAgentsRequest(filter="presence = ONLINE"), timeout=15)

A call that fails raises ``grpc.RpcError``; ``fleetwright.errors.Failure.of`` reads what it says.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc
import grpc.aio

from fleetwright.errors import AddressError, IdentityError

KEY_FILE: Final = "key.pem"
CERTIFICATE_FILE: Final = "cert.pem"
ROOT_FILE: Final = "ca.pem"

MESSAGE_BYTES: Final = 16 * 1024 * 1024
"""Largest message that a channel takes. Servers send 4 MiB at most; a later one may send more."""

Options = Sequence[tuple[str, int | str]]

OPTIONS: Final[Options] = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    # A silent watch is pinged, so that a dead server or a forgotten NAT mapping is found. What ends a
    # connection whose ping stays unanswered is ping_timeout_ms: keepalive_timeout_ms does not (measured).
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 15_000),
    ("grpc.http2.max_pings_without_data", 0),
    # A watch that lost its server tries again by itself: gRPC's own default waits up to two minutes.
    ("grpc.max_reconnect_backoff_ms", 10_000),
    # A new identity needs a new connection, also for the same server in the same process.
    ("grpc.use_local_subchannel_pool", 1),
)
"""Arguments of every channel; those given to ``connect`` come after them and win."""

_ADDRESS = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[^\s:\[\]/@]+):([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls: a private key, its certificate, and the root that the server must descend from; all PEM."""

    key: bytes = field(repr=False)
    certificate: bytes = field(repr=False)
    root: bytes = field(repr=False)
    folder: Path | None = None

    @classmethod
    def load(cls, folder: Path) -> Identity:
        """Read the folder of an identity, as ``fleetwright identities issue`` makes it.

        Raises ``IdentityError`` where a file is missing, cannot be read, is no PEM, or where the key
        is not the certificate's. Whether the certificate still holds is the server's to say.
        """
        key, certificate, root = (_read(folder, name) for name in (KEY_FILE, CERTIFICATE_FILE, ROOT_FILE))
        _check(folder, root)
        return cls(key, certificate, root, folder)

    def credentials(self) -> grpc.ChannelCredentials:
        """Return them as gRPC takes them."""
        return grpc.ssl_channel_credentials(self.root, self.key, self.certificate)


def connect(server: str, identity: Identity, *, options: Options = ()) -> grpc.Channel:
    """Open a channel to the admin port of ``server``, HOST:PORT; it connects with the first call.

    The server's certificate must name HOST and descend from the identity's root. Raises ``AddressError``.
    """
    return grpc.secure_channel(check_address(server), identity.credentials(), [*OPTIONS, *options])


def connect_aio(server: str, identity: Identity, *, options: Options = ()) -> grpc.aio.Channel:
    """Open a channel for asyncio, as ``connect`` does; make it where its event loop runs."""
    return grpc.aio.secure_channel(check_address(server), identity.credentials(), [*OPTIONS, *options])


def check_address(server: str) -> str:
    """Return ``server`` where it is HOST:PORT, with an IPv6 address in brackets; raises ``AddressError``."""
    match = _ADDRESS.fullmatch(server)
    if match is None or not 0 < int(match[1]) < 65536 or not _may_be_a_name(server.rpartition(":")[0]):
        raise AddressError(
            f"server {server!r}: write HOST:PORT, for example fleet.example.org:7444 or [::1]:7444"
        )
    return server


def _may_be_a_name(host: str) -> bool:
    try:
        host.encode("idna")  # as the resolver does, which raises no OSError: an empty or endless label
    except UnicodeError:
        return False
    return True


def _read(folder: Path, name: str) -> bytes:
    path = folder / name
    try:
        return path.read_bytes()
    except OSError as error:
        raise IdentityError(
            f"identity {folder}: {name}: {error.strerror}: name a folder with {KEY_FILE}, {CERTIFICATE_FILE} "
            f"and {ROOT_FILE} that this user can read, as `fleetwright identities issue` makes it"
        ) from error


def _check(folder: Path, root: bytes) -> None:
    # gRPC takes anything here and later says only that it cannot connect; OpenSSL tells what is wrong.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_cert_chain(folder / CERTIFICATE_FILE, folder / KEY_FILE, password=_no_password)
    except (ssl.SSLError, ValueError, OSError) as error:
        said = "the key is encrypted" if isinstance(error, ValueError) else _words(error)
        raise IdentityError(
            f"identity {folder}: {KEY_FILE} and {CERTIFICATE_FILE}: {said}: they must be a key without a "
            "passphrase and its certificate, in PEM: have the identity issued again"
        ) from error
    try:
        context.load_verify_locations(cadata=root.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise IdentityError(
            f"identity {folder}: {ROOT_FILE} is no certificate in PEM: put the server's root there, "
            "or have the identity issued again"
        ) from error


def _no_password() -> str:
    raise ValueError("no passphrase is asked for")


def _words(error: OSError) -> str:
    if not isinstance(error, ssl.SSLError):
        return str(error.strerror or error)
    mismatch = error.reason == "KEY_VALUES_MISMATCH"
    return "the key is not the one of the certificate" if mismatch else "not readable PEM"
