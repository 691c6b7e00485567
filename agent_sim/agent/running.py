"""What a running agent leaves for ``status`` to read: its session, and what waits in its journal.

The journal's file is the running agent's alone (its lock is exclusive), so the
agent says itself what is in it. Written at most once a second, and only when
something happened: an idle agent does not wake a disk.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
from fleetwright.v1 import agent_service_pb2

from agent_sim.agent.log_format import LogObserver
from agent_sim.protocol.journal import Journal

_SECONDS_BETWEEN = 1.0

_log = structlog.get_logger(__name__)


class RunningStatus(LogObserver):
    """Logs what the engine tells, and keeps the file at ``path`` up to date with it."""

    def __init__(self, path: Path, journal: Journal, clock: Callable[[], datetime]) -> None:
        super().__init__()
        self._path = path
        self._journal = journal
        self._clock = clock
        self._epoch: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[None] | None = None
        path.unlink(missing_ok=True)  # That of a run that was killed.

    def connected(self, epoch: int) -> None:
        """Note the live session."""
        super().connected(epoch)
        self._epoch = epoch
        self._changed()

    def disconnected(self, reason: str) -> None:
        """Note that there is no session."""
        super().disconnected(reason)
        self._epoch = None
        self._changed()

    def assignment_received(self, assignment: agent_service_pb2.Assignment) -> None:
        """Note an attempt more."""
        super().assignment_received(assignment)
        self._changed()

    def attempt_finished(self, attempt_id: str, outcome: str) -> None:
        """Note a result more."""
        super().attempt_finished(attempt_id, outcome)
        self._changed()

    def result_acknowledged(self, attempt_id: str, disposition: str) -> None:
        """Note an attempt less."""
        super().result_acknowledged(attempt_id, disposition)
        self._changed()

    def points_acknowledged(self, count: int) -> None:
        """Note that the queue became shorter."""
        super().points_acknowledged(count)
        self._changed()

    def journal_full(self) -> None:
        """Note that there is no room; the file may not be written before there is some."""
        super().journal_full()
        self._changed()

    def journal_has_room(self) -> None:
        """Note that there is room again."""
        super().journal_has_room()
        self._changed()

    async def close(self) -> None:
        """Take the file away: nothing runs any more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._writing is not None:
            await asyncio.wait((self._writing,))
        self._path.unlink(missing_ok=True)

    def _changed(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SECONDS_BETWEEN, self._write)

    def _write(self) -> None:
        self._timer = None
        if self._writing is not None and not self._writing.done():
            self._changed()  # A slow disk is not asked twice.
            return
        content = json.dumps(self._content())
        self._writing = asyncio.get_running_loop().run_in_executor(None, _replace, self._path, content)

    def _content(self) -> dict[str, Any]:
        journal = {"journaled": 0, "running": 0, "finished": 0, "queued_points": self._journal.queued_points}
        for entry in self._journal.entries():
            journal[entry.state.value] += 1
        return {
            "connected": self._epoch is not None,
            "session_epoch": self._epoch,
            "time": self._clock().isoformat(),
            "disk_full": not self._journal.has_room,
            "journal": journal,
        }


def _replace(path: Path, content: str) -> None:
    """Replace the file at once or not at all. It is news, not a record: no fsync, and a failure is logged."""
    beside = path.with_suffix(".new")
    try:
        beside.write_text(content, "ascii")
        os.replace(beside, path)
    except OSError as error:
        _log.warning("the status file could not be written", file=str(path), reason=error.strerror)


def read_running(path: Path) -> dict[str, Any] | None:
    """Return what the running agent said last; None where it has said nothing yet."""
    try:
        content = json.loads(path.read_text("ascii"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
