"""Reading the first message of a stream: whoever opens one and says nothing holds memory for nothing."""

from __future__ import annotations

from typing import Any

import grpc

from controlplane.errors import InvalidArgument
from controlplane.transport.patience import OutOfPatienceError, Patience


async def first(context: Any, kind: str, patience: Patience) -> Any:
    """Return what the first message carries in ``kind``.

    Raises ``InvalidArgument`` PROTOCOL_VIOLATION where it carries something else, or
    did not come in time.
    """
    try:
        message = await patience.wait(context.read())
    except OutOfPatienceError as error:
        seconds = patience.length.total_seconds()
        raise InvalidArgument(
            "PROTOCOL_VIOLATION",
            f"message: no {kind} came within {seconds:g} s; send it as you open the stream",
        ) from error
    if message is grpc.aio.EOF or message.WhichOneof("message") != kind:
        raise InvalidArgument("PROTOCOL_VIOLATION", f"message: the first message of this stream is {kind}")
    return getattr(message, kind)
