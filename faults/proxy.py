"""A network between agents and server that does what networks do: cut, delay, and swallow what is sent."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from contextlib import suppress

from devtools.ports import HOST, free_port

_READ_BYTES = 65_536
# On, with no time to linger: closing such a socket sends RST.
_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Forwards TCP connections to ``target``; connections that it has swallowed from stay dead."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self._target = target
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None
        self._random = random.Random(self.port)  # noqa: S311 - spreads delays
        self.delay = 0.0
        """Seconds that every piece of data takes in each direction."""
        self.jitter = 0.0
        """Seconds by which a delay may be longer."""
        self.swallows_up = False
        """Whether what agents send goes nowhere, on connections made before and from now on."""
        self.swallows_down = False
        """Whether what the server sends goes nowhere."""

    @property
    def address(self) -> str:
        """Where agents find it."""
        return f"{HOST}:{self.port}"

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, HOST, self.port, backlog=1024)

    async def close(self) -> None:
        """Listen no more and reset what is open."""
        if self._server is not None:
            self._server.close()
        self.cut(reset=True)

    def cut(self, *, reset: bool) -> int:
        """End every connection, by RST or by FIN in both directions; return how many there were."""
        links = list(self._links)
        for link in links:
            link.end(reset=reset)
        return len(links)

    def lose_connections(self) -> int:
        """Let every open connection go nowhere from now on, in both directions; new ones are good."""
        for link in self._links:
            link.lost = True
        return len(self._links)

    def mend(self) -> None:
        """Forward everything again; a connection that bytes are missing from is reset, as by a stranger."""
        self.swallows_up = self.swallows_down = False
        self.delay = self.jitter = 0.0
        for link in list(self._links):
            if link.swallowed:
                link.end(reset=True)

    def pause(self) -> float:
        """Return how long the next piece of data takes."""
        return self.delay + self._random.uniform(0, self.jitter)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection(HOST, self._target)
        except OSError:
            writer.transport.abort()
            return
        link = _Link(self, writer, there_writer)
        self._links.add(link)
        try:
            await asyncio.gather(
                link.forward(reader, there_writer, up=True), link.forward(there_reader, writer, up=False)
            )
        finally:
            self._links.discard(link)
            link.end(reset=False)


class _Link:
    """One connection and its other half."""

    def __init__(self, proxy: Proxy, here: asyncio.StreamWriter, there: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._ends = (here, there)
        self.lost = False
        self.swallowed = False

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        """Forward one direction to its end, in order and each piece as late as the network is slow."""
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        sending = asyncio.create_task(self._send(pieces, writer))
        loop = asyncio.get_running_loop()
        last = 0.0
        with suppress(OSError):
            while data := await reader.read(_READ_BYTES):
                if self.lost or (self._proxy.swallows_up if up else self._proxy.swallows_down):
                    self.swallowed = True
                    continue
                last = max(last, loop.time() + self._proxy.pause())
                pieces.put_nowait((last, data))
        pieces.put_nowait((last, b""))
        await sending

    async def _send(self, pieces: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            while True:
                due, data = await pieces.get()
                if (wait := due - loop.time()) > 0:
                    await asyncio.sleep(wait)
                if not data:
                    # The end of a connection that lost something is not heard of either.
                    if not self.swallowed and writer.can_write_eof():
                        writer.write_eof()
                    return
                writer.write(data)
                await writer.drain()

    def end(self, *, reset: bool) -> None:
        """End both halves."""
        for writer in self._ends:
            end = writer.get_extra_info("socket")
            if reset and end is not None:
                with suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                writer.transport.abort()
            else:
                writer.close()
