"""Writing to a stream whose reader may have stopped.

gRPC takes about 4 MiB for a client that does not read and then lets ``write``
wait for ever. Nobody waits for ever here: a write that takes too long ends the stream,
and with it what was buffered.
"""

from __future__ import annotations

import asyncio
from typing import Any

from controlplane.errors import ResourceExhausted
from controlplane.transport.patience import OutOfPatienceError, Patience


async def write(context: Any, message: object, patience: Patience) -> None:
    """Write ``message``; raises ``ResourceExhausted`` SLOW_READER where it is not taken in time."""
    try:
        await patience.wait(context.write(message))
    except OutOfPatienceError as error:
        seconds = patience.length.total_seconds()
        raise ResourceExhausted(
            "SLOW_READER", f"nothing was read from this stream for {seconds:g} s; read while you write"
        ) from error


def uncancel() -> None:
    """Take back a cancellation that was meant as "end the stream", so that its handler can end it."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
