"""Telling systemd how far the server is: sd_notify(3), which is a datagram to a socket that it names.

Outside of systemd, or in a unit that is not ``Type=notify``, there is no socket and nothing is sent.
"""

from __future__ import annotations

import socket

import structlog

_log = structlog.get_logger(__name__)

READY = "READY=1"
STOPPING = "STOPPING=1"


def notify(address: str | None, *states: str) -> None:
    """Send assignments such as ``READY=1`` to ``address``: a path, or ``@`` and an abstract name.

    A manager that cannot be told is logged and nothing else: to serve matters more.
    """
    if not address:
        return
    name = f"\0{address[1:]}" if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            sender.sendto("\n".join(states).encode(), name)
    except OSError as error:
        _log.warning("the service manager could not be told", states=states, error=str(error))
