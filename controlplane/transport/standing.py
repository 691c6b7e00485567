"""Streams that answer for as long as the caller stays, and no longer than it may."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from datetime import timedelta

from controlplane.errors import ServiceError

CHECKED_EVERY = timedelta(seconds=5)
"""A certificate that expires or is denied ends the streams that it opened after at most this."""


async def while_admitted(
    serving: Coroutine[object, object, None], check: Callable[[], None], every: timedelta
) -> None:
    """Await ``serving``; cancel it once ``check``, asked ``every`` so often, raises a ``ServiceError``.

    Raises that error then. TLS looks at a certificate when a connection begins, and a
    stream may outlast it by months.
    """
    loop = asyncio.get_running_loop()
    limit = asyncio.timeout(None)
    refused: list[ServiceError] = []
    # The next one alone.
    timers: deque[asyncio.TimerHandle] = deque(maxlen=1)

    def look() -> None:
        try:
            check()
        except ServiceError as error:
            refused.append(error)
            limit.reschedule(loop.time())
        else:
            timers.append(loop.call_later(every.total_seconds(), look))

    timers.append(loop.call_later(every.total_seconds(), look))
    try:
        async with limit:
            await serving
    except TimeoutError:
        if refused:
            raise refused[0] from None
        raise
    finally:
        timers[0].cancel()
