"""Fetching the root that a join token names.

The agent trusts nothing yet, so it shakes hands without verification, reads the
chain that the server shows, and keeps the one certificate whose SHA-256 is the
one in the token. Only then does it open a connection that trusts that root and
nothing else; the token itself never travels over the unverified one.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import select
import socket
import time
from datetime import timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from OpenSSL import SSL

from agent_sim.protocol.errors import EnrollmentError
from agent_sim.protocol.proxy import Proxy

_MAX_CHAIN = 10
"""Certificates looked at; a longer chain is not a server of ours."""

_MAX_PROXY_ANSWER = 16 << 10
_TUNNEL_OPEN = re.compile(rb"^HTTP/1\.[01] 2\d\d\b")
_UNREACHABLE: Final = "check the address, that the server runs, and that no firewall stands in between"


async def fetch_root(
    address: str,
    root_digest: bytes,
    timeout: timedelta = timedelta(seconds=20),
    http_proxy: str | None = None,
) -> bytes:
    """Return, in PEM, the root in the chain of ``address`` whose DER has the SHA-256 ``root_digest``.

    Goes through the CONNECT proxy ``http_proxy`` where one is given. Raises
    EnrollmentError where the server cannot be reached in ``timeout``, does not
    speak TLS, or shows no such certificate.
    """
    return await asyncio.to_thread(_fetch, address, root_digest, timeout.total_seconds(), http_proxy)


def split_address(address: str) -> tuple[str, int]:
    """Split ``host:port`` or ``[v6]:port``. Raises EnrollmentError where it is neither."""
    host, separator, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise EnrollmentError(f"address {address!r}: expected host:port, for example fleet.example.com:7445")
    return host, int(port)


def _fetch(address: str, root_digest: bytes, seconds: float, http_proxy: str | None) -> bytes:
    host, port = split_address(address)
    deadline = time.monotonic() + seconds
    try:
        with _connect(host, port, http_proxy, seconds) as raw:
            raw.setblocking(False)
            chain = _shown_chain(raw, host, deadline)
    except TimeoutError as error:
        raise EnrollmentError(
            f"{address}: no answer within {seconds:.0f} s: {_UNREACHABLE}", retryable=True
        ) from error
    except OSError as error:
        raise EnrollmentError(
            f"{address}: {error.strerror or error}: {_UNREACHABLE}", retryable=True
        ) from error
    except SSL.Error as error:
        raise EnrollmentError(
            f"{address}: the server there does not speak TLS as expected; is it the enrolment port?",
            retryable=True,
        ) from error
    for certificate in chain[:_MAX_CHAIN]:
        if hmac.compare_digest(certificate.fingerprint(hashes.SHA256()), root_digest):
            return certificate.public_bytes(serialization.Encoding.PEM)
    raise EnrollmentError(
        f"{address}: the server there does not show the root that the join token names; "
        "either the token is of another installation, or someone stands in between"
    )


def _connect(host: str, port: int, http_proxy: str | None, seconds: float) -> socket.socket:
    if http_proxy is None:
        return socket.create_connection((host, port), timeout=seconds)
    proxy = Proxy.parse(http_proxy)
    try:
        raw = socket.create_connection((proxy.host, proxy.port), timeout=seconds)
    except OSError as error:
        raise EnrollmentError(
            f"proxy {proxy.host}:{proxy.port}: {error.strerror or error}: check --http-proxy", retryable=True
        ) from error
    try:
        raw.sendall(proxy.request(host, port))
        status = _status_line(raw)
    except BaseException:
        raw.close()
        raise
    if not _TUNNEL_OPEN.match(status):
        raw.close()
        shown = status.decode("ascii", "replace").strip() or "it closed the connection"
        raise EnrollmentError(
            f"proxy {proxy.host}:{proxy.port} opens no tunnel to {host}:{port}: {shown}", retryable=True
        )
    return raw


def _status_line(raw: socket.socket) -> bytes:
    """Return the first line of a proxy's answer, and read no byte beyond its header: TLS follows."""
    answer = b""
    while not answer.endswith(b"\r\n\r\n") and len(answer) < _MAX_PROXY_ANSWER:
        byte = raw.recv(1)
        if not byte:
            break
        answer += byte
    return answer.partition(b"\r\n")[0]


def _shown_chain(raw: socket.socket, host: str, deadline: float) -> list[x509.Certificate]:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_verify(SSL.VERIFY_NONE, lambda *_: True)
    context.set_alpn_protos([b"h2"])
    connection = SSL.Connection(context, raw)
    connection.set_tlsext_host_name(host.encode("idna"))
    connection.set_connect_state()
    while True:
        try:
            connection.do_handshake()
            break
        except SSL.WantReadError:
            _wait(raw, deadline, write=False)
        except SSL.WantWriteError:
            _wait(raw, deadline, write=True)
    return connection.get_peer_cert_chain(as_cryptography=True) or []


def _wait(raw: socket.socket, deadline: float, *, write: bool) -> None:
    poll = select.poll()
    poll.register(raw, select.POLLOUT if write else select.POLLIN)
    left = deadline - time.monotonic()
    if left <= 0 or not poll.poll(left * 1000):
        raise TimeoutError
