"""Writing to a stream whose reader may have stopped.

gRPC takes about 4 MiB for a client that does not read and then lets ``write``
wait for ever. Nobody waits for ever here: a write that takes too long ends the stream,
and with it what was buffered.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from controlplane.errors import ResourceExhausted


async def write(context: Any, message: object, timeout: timedelta) -> None:
    """Write ``message``; raises ``ResourceExhausted`` SLOW_READER where it is not taken in time."""
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            await context.write(message)
    except TimeoutError as error:
        raise ResourceExhausted(
            "SLOW_READER",
            f"nothing was read from this stream for {timeout.total_seconds():g} s; read while you write",
        ) from error


def uncancel() -> None:
    """Take back a cancellation that was meant as "end the stream", so that its handler can end it."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
