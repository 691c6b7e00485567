"""Free ports for servers that are stopped and started again."""

from __future__ import annotations

import contextlib
import secrets
import socket

HOST = "127.0.0.1"
# Below the range that the system takes the ports of outgoing connections from: a server that is away for
# a minute finds its port free when it comes back, also where thousands of clients connect meanwhile.
_PORTS = range(21_000, 32_000)


def free_port() -> int:
    """Return a port of the loopback interface that nobody uses now."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Return so many ports of the loopback interface, all different, that nobody uses now."""
    found: dict[int, None] = {}
    while len(found) < count:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            found[port] = None
    return list(found)
