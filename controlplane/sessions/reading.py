"""Reading the first message of a stream: whoever opens one and says nothing holds memory for nothing."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import grpc

from controlplane.errors import InvalidArgument


async def first(context: Any, kind: str, timeout: timedelta) -> Any:
    """Return what the first message carries in ``kind``.

    Raises ``InvalidArgument`` PROTOCOL_VIOLATION where it carries something else, or
    did not come within ``timeout``.
    """
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            message = await context.read()
    except TimeoutError as error:
        raise InvalidArgument(
            "PROTOCOL_VIOLATION",
            f"message: no {kind} came within {timeout.total_seconds():g} s; send it as you open the stream",
        ) from error
    if message is grpc.aio.EOF or message.WhichOneof("message") != kind:
        raise InvalidArgument("PROTOCOL_VIOLATION", f"message: the first message of this stream is {kind}")
    return getattr(message, kind)
