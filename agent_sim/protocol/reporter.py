"""What a running attempt may say: output into the journal, progress to whoever listens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleetwright.v1 import work_pb2

from agent_sim.protocol.context import EngineContext
from agent_sim.protocol.errors import JournalFullError

if TYPE_CHECKING:
    from agent_sim.protocol.attempts import AttemptListener

_PROGRESS_INTERVAL = 1.0
"""Seconds between two reports of progress, as AttemptProgress says."""
_MAX_MESSAGE = 256


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an attempt is, within the limits of ``AttemptProgress``."""

    percent: int
    message: str
    status: work_pb2.DeploymentStatus.ValueType


class JournalReporter:
    """Implements AttemptReporter for one attempt."""

    def __init__(
        self, context: EngineContext, attempt_id: str, listener: Callable[[], AttemptListener | None]
    ) -> None:
        self._context = context
        self._attempt_id = attempt_id
        self._listener = listener
        self._newest: Progress | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.discarded = 0
        """Bytes of output that there was no room for."""

    async def output(self, stream: work_pb2.OutputStream.ValueType, data: bytes) -> None:
        """Journal ``data`` as the next bytes of ``stream``; on a full disk, count it.

        From there on all is only counted: a part that is missing in between would not be seen.
        """
        if not data:
            return
        if not self.discarded:
            try:
                await self._context.journal.append_output(self._attempt_id, stream, data)
            except JournalFullError:
                self._context.observer.output_discarded(self._attempt_id)
            else:
                if (listener := self._listener()) is not None:
                    listener.output(self._attempt_id)
                return
        self.discarded += len(data)

    def progress(
        self,
        percent: int,
        message: str,
        status: work_pb2.DeploymentStatus.ValueType = work_pb2.DEPLOYMENT_STATUS_UNSPECIFIED,
    ) -> None:
        """Report how far the attempt is; the newest report replaces one not sent yet."""
        self._newest = Progress(max(0, min(100, percent)), message[:_MAX_MESSAGE], status)
        if self._timer is None:
            self._say()

    def close(self) -> None:
        """Say nothing more: the result will."""
        self._newest = None
        if self._timer is not None:
            self._timer.cancel()

    def _say(self) -> None:
        self._timer = None
        if self._newest is None:
            return
        if (listener := self._listener()) is not None:
            listener.progress(self._attempt_id, self._newest)
        self._newest = None
        self._timer = asyncio.get_running_loop().call_later(_PROGRESS_INTERVAL, self._say)
