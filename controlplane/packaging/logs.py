"""The log of a stage while it runs: lines are kept soon, not one by one, and never hold the stage up."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog

from controlplane import redaction
from controlplane.clock import Clock, to_micros
from controlplane.errors import ServiceError
from controlplane.packaging.rules import Stage
from controlplane.packaging.store import pipelines as stored
from controlplane.packaging.store.pipelines import MOST_LOG_LINES, LogLine
from controlplane.storage.database import Database
from controlplane.wakeups import WakeUps

TOPIC = "pipeline_log"
"""The wake-up that says that lines were kept."""

_SOON = 0.2  # seconds
_LINE_BYTES = 4_096
_CUT = "the log is cut off here: it has as many lines as are kept"

_log = structlog.get_logger(__name__)


class Log:
    """Takes the lines of one stage of a pipeline."""

    def __init__(
        self, database: Database, wakeups: WakeUps, clock: Clock, pipeline_id: str, stage: Stage
    ) -> None:
        self._database = database
        self._wakeups = wakeups
        self._clock = clock
        self._pipeline_id = pipeline_id
        self._stage = stage
        self._waiting: list[tuple[int, str, str]] = []
        self._closing = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None

    def say(self, level: str, text: str) -> None:
        """Add a line, cut to 4,096 bytes; what looks like a secret is not kept."""
        line = redaction.text(text).encode()[:_LINE_BYTES].decode(errors="ignore")
        self._waiting.append((to_micros(self._clock.now()), level, line))
        if self._keeping is None or self._keeping.done():
            self._keeping = asyncio.get_running_loop().create_task(self._keep_soon())

    async def close(self) -> None:
        """Keep what was said."""
        self._closing.set()
        if self._keeping is not None:
            await self._keeping
        await self._keep()

    async def _keep_soon(self) -> None:
        while self._waiting:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), _SOON)
            await self._keep()

    async def _keep(self) -> None:
        said, self._waiting = self._waiting, []
        if not said:
            return
        try:
            async with self._database.unit_of_work() as work:
                # Whoever else writes this log, a worker that was taken for dead, waits for this row.
                await stored.find(work.connection, self._pipeline_id, lock=True)
                last = await stored.log_length(work.connection, self._pipeline_id)
                lines = [
                    LogLine(last + place, time, self._stage, level, text)
                    for place, (time, level, text) in enumerate(said, start=1)
                ]
                await stored.append_log(work, self._pipeline_id, _within(lines, last))
                work.after_commit(lambda: self._wakeups.notify(TOPIC))
        except ServiceError as error:
            _log.warning("lines of a pipeline's log were not kept", count=len(said), error=error.message)


def _within(lines: list[LogLine], last: int) -> list[LogLine]:
    room = MOST_LOG_LINES - last
    if len(lines) < room:
        return lines
    if room <= 0:
        return []
    cut = lines[room - 1]
    return [*lines[: room - 1], LogLine(cut.number, cut.time, cut.stage, "warning", _CUT)]
