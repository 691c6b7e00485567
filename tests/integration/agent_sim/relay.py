"""A network between an agent and its server that the test breaks: it cuts, or swallows one direction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Relay:
    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self.swallow_to_server = False
        self.swallow_to_agent = False
        self.connections: asyncio.Queue[None] = asyncio.Queue()
        self.address = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.put_nowait(None)
        onward_reader, onward_writer = await asyncio.open_connection(*self._target)
        self._writers += [writer, onward_writer]
        for source, sink, up in ((reader, onward_writer, True), (onward_reader, writer, False)):
            task = asyncio.create_task(self._carry(source, sink, up))
            self._tasks.add(task)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, up: bool) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                if not (self.swallow_to_server if up else self.swallow_to_agent):
                    sink.write(data)
                    await sink.drain()
        sink.close()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        # Transports close their sockets in the loop's next turn.
        await asyncio.sleep(0)


@asynccontextmanager
async def relaying(target: str) -> AsyncIterator[Relay]:
    """Stand between ``relay.address`` and ``target``, both host:port."""
    relay = Relay(target)
    server = await asyncio.start_server(relay.take, "127.0.0.1", 0)
    relay.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield relay
    finally:
        server.close()
        await relay.close()
