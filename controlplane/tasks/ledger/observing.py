"""Observations: what a process sees of deliveries and no transaction of a change tells.

They are kept in memory for a moment and written together, so that they cost next to nothing. A crash
loses them; what is more than ``KEPT`` is dropped, counted, and said in the ledger itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.storage.writer import Operation, Writer
from controlplane.tasks.ledger.events import DeliveryEvent, EventRow, event_row
from controlplane.tasks.ledger.noting import note

KEPT = 50_000
"""Observations in memory, some 20 MB; a writer that stands still for long must not fill it."""

AT_ONCE = 1_000
"""Observations of one operation: as many as one commit takes of others."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Observe(Operation[None]):
    """Write what was observed; shares the commit, and the statement, with the changes of the moment."""

    rows: Sequence[EventRow]

    @property
    def key(self) -> str:
        """All of a process: they are written in their order."""
        return "observations"


class Observations:
    """Notes what is seen and writes it every ``every``, or once there are ``AT_ONCE``.

    ``lost`` is called with how many were dropped, whenever some are; ``now`` gives the instant in
    microseconds. ``run`` must be running, or ``flush`` be called.
    """

    def __init__(
        self,
        writer: Writer,
        now: Callable[[], int],
        lost: Callable[[int], None],
        every: timedelta = timedelta(seconds=1),
    ) -> None:
        self._writer = writer
        self._now = now
        self._lost = lost
        self._every = every.total_seconds()
        self._waiting: deque[EventRow] = deque()
        self._dropped = 0
        self._some = asyncio.Event()
        self._many = asyncio.Event()
        writer.register(Observe, _write)

    def note(
        self,
        event: DeliveryEvent,
        task_id: str,
        attempt_id: str,
        agent_id: str,
        epoch: int,
        time: int,
        detail: str = "",
    ) -> None:
        """Note one observation, at an instant in microseconds."""
        waiting = self._waiting
        if len(waiting) >= KEPT:
            self._drop(1)
            return
        waiting.append(event_row(event, task_id, attempt_id, agent_id, time, epoch, detail))
        if len(waiting) == 1:
            self._some.set()
        elif len(waiting) == AT_ONCE:
            self._many.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._some.wait()
            try:
                async with asyncio.timeout(self._every):
                    await self._many.wait()
            except TimeoutError:
                pass
            await self.flush()

    async def flush(self) -> None:
        """Write what was noted until now. A group that cannot be written is dropped and counted."""
        while self._waiting or self._dropped:
            rows = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
            count, dropped, self._dropped = len(rows), self._dropped, 0
            if dropped:
                rows.append(self._lost_so_many(dropped))
            try:
                await self._writer.submit(Observe(rows))
            except Exception as error:  # noqa: BLE001 # nothing waits for them, and the server goes on without
                _log.warning("observations could not be written", count=count, error=type(error).__name__)
                self._dropped += dropped
                self._drop(count)
                break
        if not self._waiting and not self._dropped:
            self._some.clear()
        self._many.clear()

    def _lost_so_many(self, dropped: int) -> EventRow:
        return event_row(DeliveryEvent.OBSERVATIONS_LOST, "", None, "", self._now(), None, str(dropped))

    def _drop(self, count: int) -> None:
        self._dropped += count
        self._lost(count)
        self._some.set()


async def _write(work: UnitOfWork, operations: Sequence[Observe]) -> Sequence[None]:
    for operation in operations:
        note(work, operation.rows)
    return [None] * len(operations)
