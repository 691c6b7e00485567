"""Awaiting what a stream says, with a limit that turns a hang into a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from tests.integration.transport.doors import Refusal, read_refusal

PATIENCE = 30.0
"""Seconds that no test waits for in earnest: only a hang takes so long."""


async def read(call: Any) -> Any:
    """Return the next message of ``call``, or ``grpc.aio.EOF``."""
    async with asyncio.timeout(PATIENCE):
        return await call.read()


async def until(call: Any, wanted: Callable[[Any], bool]) -> Any:
    """Read ``call`` up to the first message that is ``wanted``, and return it."""
    seen = []
    while (message := await read(call)) is not grpc.aio.EOF:
        if wanted(message):
            return message
        seen.append(message)
    raise AssertionError(f"the stream ended in order before what was wanted; seen: {seen}")


async def ended(call: Any) -> tuple[grpc.StatusCode, list[Any]]:
    """Read ``call`` to its end; return its code and what it still said."""
    said: list[Any] = []
    try:
        while (message := await read(call)) is not grpc.aio.EOF:
            said.append(message)
    except grpc.aio.AioRpcError as error:
        return error.code(), said
    return await call.code(), said


async def refused(call: Any) -> Refusal:
    """Read ``call`` to its end, which must be a refusal."""
    try:
        while (message := await read(call)) is not grpc.aio.EOF:
            del message
    except grpc.aio.AioRpcError as error:
        return read_refusal(error)
    raise AssertionError("the stream ended in order")


class Stream:
    """One bidirectional call of an agent, spoken by hand: ``send(hello=…)``, ``expect("welcome")``."""

    def __init__(self, call: Any, request: type[Any]) -> None:
        self.call = call
        self._request = request

    async def send(self, **message: Any) -> None:
        """Write one message, by the field of its oneof; no field writes an empty one."""
        await self.call.write(self._request(**message))

    async def expect(self, kind: str) -> Any:
        """Return the next message, which must be of ``kind``."""
        message = await read(self.call)
        assert message is not grpc.aio.EOF, f"the stream ended before {kind}"
        assert message.WhichOneof("message") == kind, f"wanted {kind}, read {message}"
        return getattr(message, kind)

    async def until(self, kind: str) -> Any:
        """Return the next message of ``kind``, whatever comes before."""
        return getattr(await until(self.call, lambda message: message.HasField(kind)), kind)

    async def half_close(self) -> None:
        """Say that nothing more comes."""
        await self.call.done_writing()

    async def ended(self) -> tuple[grpc.StatusCode, list[Any]]:
        """Read to the end; return the code and what was still said."""
        return await ended(self.call)

    async def refused(self) -> Refusal:
        """Read to the end, which must be a refusal."""
        return await refused(self.call)
