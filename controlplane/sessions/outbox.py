"""What waits to be written on a Tasks stream. Who sends and never reads must not fill memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from fleetwright.v1 import agent_service_pb2 as pb2

ANSWERS = 256
"""Answers that wait before more is read."""

ASSIGNED_BYTES = 8 << 20
"""Bytes of assignments that wait before more is leased."""


class Outbox:
    """Responses in the order in which they were said.

    ``room`` is set while more may be read. ``drained`` is called when assignments may be
    put in again after there was no place for them.
    """

    def __init__(self, drained: Callable[[], None]) -> None:
        self._drained = drained
        self._waiting: deque[pb2.TasksResponse] = deque()
        self._assigned_bytes = 0
        self._more = asyncio.Event()
        self._closed = False
        self.room = asyncio.Event()
        self.room.set()

    @property
    def takes_assignments(self) -> bool:
        """Whether there is place for more assignments."""
        return self._assigned_bytes < ASSIGNED_BYTES

    def put(self, response: pb2.TasksResponse) -> None:
        """Say ``response`` after all that was said before."""
        self._waiting.append(response)
        self._assigned_bytes += _assigned(response)
        self._more.set()
        if len(self._waiting) >= ANSWERS:
            self.room.clear()

    def close(self, *, refused: bool) -> None:
        """Let ``write_all`` end once all is written; of a stream that is ``refused`` only what was committed.

        Work is not for someone who was just sent away; that a result is durable is.
        """
        self._closed = True
        if refused:
            kept = [response for response in self._waiting if response.HasField("result_acknowledged")]
            self._waiting = deque(kept)
        self._more.set()

    async def write_all(self, write: Callable[[pb2.TasksResponse], Awaitable[None]]) -> None:
        """Write what is said until the outbox is closed and empty."""
        while True:
            while self._waiting:
                await self._write_next(write)
            if self._closed:
                return
            self._more.clear()
            await self._more.wait()

    async def _write_next(self, write: Callable[[pb2.TasksResponse], Awaitable[None]]) -> None:
        response = self._waiting.popleft()
        if len(self._waiting) < ANSWERS:
            self.room.set()
        await write(response)
        full = not self.takes_assignments
        self._assigned_bytes -= _assigned(response)
        if full and self.takes_assignments:
            self._drained()


def _assigned(response: pb2.TasksResponse) -> int:
    return response.ByteSize() if response.HasField("assignment") else 0
