"""The plaintext listener of probes and scrapers: gRPC health and HTTP/1.1 on one port.

Kubernetes' gRPC probes cannot speak TLS, and Prometheus speaks HTTP/1.1, so both
come here. The first bytes tell them apart: HTTP/2 begins with a fixed preface
(RFC 9113, section 3.4) and is spliced to a gRPC server on a Unix socket of its own. That
has a name of Linux's abstract namespace, not a file: a killed process leaves nothing behind.
Whatever else comes, or nothing, is dropped and counted. It is bound to loopback
unless an operator says otherwise: nothing here is authenticated.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from datetime import timedelta

import grpc

from controlplane.observability.metrics import Metrics
from controlplane.transport import addresses, channel_options, http1
from controlplane.transport.diagnostics import Health
from controlplane.transport.http1 import Answer
from controlplane.transport.interceptors import CallInterceptor
from controlplane.transport.methods import Listener

HEAD_TIMEOUT = timedelta(seconds=5)
"""A probe that has not said what it wants by then is dropped."""

MAX_CONNECTIONS = 64
"""Probes are few; more are dropped at once, so that they cannot use up the process's files. One of
gRPC takes two files, for it is spliced."""

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_TELLING = 4
_CHUNK = 16 * 1024


class HealthListener:
    """Serves ``health`` and ``metrics``; made and used on the running event loop."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        health: Health,
        metrics: Metrics,
        head_timeout: timedelta = HEAD_TIMEOUT,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self._host, self._port = host, port
        self._health = health
        self._metrics = metrics
        self._head_seconds = head_timeout.total_seconds()
        self._max_connections = max_connections
        self._connections: set[asyncio.Task[None]] = set()
        self._socket = f"fleetwright-health-{secrets.token_hex(16)}"
        self._server: asyncio.Server | None = None
        self._grpc = grpc.aio.server(
            interceptors=(CallInterceptor(Listener.HEALTH, peers=None, metrics=metrics),),
            options=channel_options.health_server(),
        )
        health.add_to(self._grpc)
        self._routes: http1.Routes = {
            "/metrics": lambda: Answer(200, metrics.expose(), http1.METRICS_TEXT),
            "/healthz": lambda: Answer(200, b"ok\n"),
            "/readyz": lambda: Answer(200, b"ok\n") if health.ready else Answer(503, b"not serving\n"),
        }

    async def open(self) -> int:
        """Listen, and return the port; raises ``StartRefused`` where it cannot be had."""
        self._grpc.add_insecure_port(f"unix-abstract:{self._socket}")
        await self._grpc.start()
        try:
            self._server = await asyncio.start_server(
                self._accept, self._host, self._port, limit=http1.HEADER_BYTES
            )
        except OSError as error:
            await self.close()
            raise addresses.refused(Listener.HEALTH.value, self._host, self._port, error) from error
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is not None:
            self._server.close()
        connections = list(self._connections)
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await self._grpc.stop(0)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= self._max_connections:
            self._metrics.health_connections.labels("overload").inc()
            writer.close()
            return
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            spoken = await self._speak(reader, writer)
            self._metrics.health_connections.labels(spoken).inc()
            if spoken == "h2c":
                await self._splice(reader, writer)
        except OSError:
            pass  # the other end is gone: nothing is left to do for it
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _speak(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        """Read what the connection speaks, answer it where it is HTTP/1.1, and return its name."""
        begun = b""
        try:
            async with asyncio.timeout(self._head_seconds):
                begun = await reader.readexactly(_TELLING)
                if _PREFACE.startswith(begun):
                    rest = await reader.readexactly(len(_PREFACE) - _TELLING)
                    return "h2c" if begun + rest == _PREFACE else "garbage"
                head = begun + await reader.readuntil(b"\r\n\r\n")
                response = http1.respond(head, self._routes)
                if response is None:
                    return "garbage"
                writer.write(response)
                await writer.drain()
                return "http1"
        except TimeoutError:
            return "garbage" if begun else "silent"
        except asyncio.IncompleteReadError as error:
            return "garbage" if begun or error.partial else "silent"
        except asyncio.LimitOverrunError:
            return "garbage"

    async def _splice(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_unix_connection(f"\0{self._socket}")
        inner_writer.write(_PREFACE)
        directions = [
            asyncio.ensure_future(_pump(reader, inner_writer)),
            asyncio.ensure_future(_pump(inner_reader, writer)),
        ]
        try:
            # Neither side of HTTP/2 half-closes its connection: the first end is the end.
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # Closed before anything is awaited: a second cancellation may cut the rest short.
            inner_writer.close()
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
