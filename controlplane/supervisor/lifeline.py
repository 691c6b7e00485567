"""The socket between a supervisor and a part: the part says what it listens on, and ends with its end.

A supervisor that is killed leaves nothing behind that would go on for ever: the system closes its end
of every lifeline, and each part drains as if it had been asked to.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from contextlib import suppress

SERVING = "serving"


class Lifeline:
    """A part's end, as the number of an open file that it inherited."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)

    async def serving(self, ports: Mapping[str, int]) -> None:
        """Say that the part serves, and on which ports by listener."""
        line = json.dumps({"state": SERVING, "ports": dict(ports)}).encode() + b"\n"
        with suppress(OSError):  # the supervisor is gone: that is what ``ended`` tells
            await asyncio.get_running_loop().sock_sendall(self._socket, line)

    async def ended(self) -> None:
        """Wait for the end of the supervisor."""
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            while await loop.sock_recv(self._socket, 64):
                pass
