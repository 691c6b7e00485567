"""The socket between a supervisor and a part: what the part listens on, that it runs, and the end of both.

A supervisor that is killed leaves nothing behind that would go on for ever: the system closes its end
of every lifeline, and each part drains as if it had been asked to. The other way round, a part that is
stopped or whose event loop hangs does not end, and would keep its share of the connections for ever: so
each says that it runs, from its event loop, and is taken for dead where it does not.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta

SERVING = "serving"
RUNS = "runs"

EVERY = timedelta(seconds=2)
"""How often a part says that its event loop runs: ten times while the supervisor would wait for it."""


class Lifeline:
    """A part's end, as the number of an open file that it inherited."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)

    async def serving(self, ports: Mapping[str, int]) -> None:
        """Say that the part serves, and on which ports by listener."""
        await self._say({"state": SERVING, "ports": dict(ports)})

    async def runs(self) -> None:
        """Say again and again that the event loop runs, until cancelled."""
        while True:
            await self._say({"state": RUNS})
            await asyncio.sleep(EVERY.total_seconds())

    async def _say(self, what: Mapping[str, object]) -> None:
        line = json.dumps(what).encode() + b"\n"
        with suppress(OSError):  # the supervisor is gone: that is what ``ended`` tells
            await asyncio.get_running_loop().sock_sendall(self._socket, line)

    async def ended(self) -> None:
        """Wait for the end of the supervisor."""
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            while await loop.sock_recv(self._socket, 64):
                pass
