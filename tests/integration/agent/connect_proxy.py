"""An HTTP CONNECT proxy of forty lines, which keeps a list of the tunnels that it opened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class ConnectProxy:
    def __init__(self) -> None:
        self.tunnels: list[str] = []
        self.authorizations: list[str] = []
        self.refusing = False
        self.url = ""
        self._carrying: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        header = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
        method, target, _ = header[0].split(" ")
        assert method == "CONNECT"
        self.tunnels.append(target)
        self.authorizations += [line for line in header if line.lower().startswith("proxy-authorization:")]
        if self.refusing:
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        host, _, port = target.rpartition(":")
        onward_reader, onward_writer = await asyncio.open_connection(host, int(port))
        self._writers += [writer, onward_writer]
        writer.write(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
        for source, sink in ((reader, onward_writer), (onward_reader, writer)):
            self._carrying.add(asyncio.create_task(_carry(source, sink)))

    async def close(self) -> None:
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        # Transports close their sockets in the loop's next turn.
        await asyncio.sleep(0)


async def _carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    sink.close()


@asynccontextmanager
async def connect_proxy() -> AsyncIterator[ConnectProxy]:
    """Serve on 127.0.0.1."""
    proxy = ConnectProxy()
    server = await asyncio.start_server(proxy.take, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
