"""Addresses to listen on, and what to tell an operator when one cannot be had."""

from __future__ import annotations

import errno
import socket

from controlplane.preflight import StartRefused


def join(host: str, port: int) -> str:
    """Return ``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def refused(listener: str, host: str, port: int, error: OSError | None = None) -> StartRefused:
    """Return why the ``listener`` cannot have its port, and what to do about it."""
    error = error or bind_error(host, port)
    variable = f"FLEETWRIGHT_{listener.upper()}_PORT"
    where = f"the {listener} listener cannot have {join(host, port)}"
    number = error.errno if error is not None else None
    if number == errno.EADDRINUSE:
        return StartRefused(
            f"{where}: another program has port {port}; stop it (find it with `ss -ltnp 'sport = :{port}'`)"
            f" or set {variable} to a free port, or to 0 for any"
        )
    if number == errno.EACCES:
        return StartRefused(f"{where}: port {port} needs privileges; set {variable} to a port from 1024 up")
    reason = error.strerror if error is not None and error.strerror else "the address cannot be bound"
    return StartRefused(f"{where}: {reason}; check the host to bind and {variable}")


def bind_error(host: str, port: int) -> OSError | None:
    """Bind for a moment, to learn what gRPC does not say: why it fails. None where it can be bound."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
    except OSError as error:
        return error
    return None
