"""The agent's log: structured, on standard error; JSON unless a person reads it.

What goes in are names, ids, counts and outcomes. Script bodies, arguments,
environments, output and tokens are never handed to a logger.
"""

from __future__ import annotations

import logging
import sys
from datetime import timedelta
from typing import TextIO

import structlog
from fleetwright.v1 import agent_service_pb2

from agent_sim.protocol.observer import Observer

LEVELS = ("debug", "info", "warning", "error")


def configure_logging(level: str, stream: TextIO | None = None) -> None:
    """Send this process's log to ``stream``, standard error by default; ``level`` is one of LEVELS."""
    stream = stream or sys.stderr
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[structlog.typing.Processor] = (
        # Plain, because the other tracebacks show local variables: those of a script are secrets.
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if stream.isatty()
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    # asyncio's own debug lines are about its selector; nobody who asks for the agent's wants them.
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


class LogObserver(Observer):
    """Writes what an engine tells into the log."""

    def __init__(self) -> None:
        self._log = structlog.get_logger("agent_sim.agent")

    def connected(self, epoch: int) -> None:
        """Log that the server welcomed a session."""
        self._log.info("connected", epoch=epoch)

    def disconnected(self, reason: str) -> None:
        """Log that the session ended."""
        self._log.info("disconnected", reason=reason)

    def failed(self, reason: str, detail: str) -> None:
        """Log a failed call or stream."""
        self._log.warning("call failed", reason=reason, detail=detail)

    def assignment_received(self, assignment: agent_service_pb2.Assignment) -> None:
        """Log an assignment by its names; what it asks for is not logged."""
        kind = assignment.spec.WhichOneof("kind")
        self._log.info("work received", attempt=assignment.attempt_id, task=assignment.task, kind=kind)

    def attempt_finished(self, attempt_id: str, outcome: str) -> None:
        """Log that a result is in the journal."""
        self._log.debug("result journalled", attempt=attempt_id, outcome=outcome)

    def result_acknowledged(self, attempt_id: str, disposition: str) -> None:
        """Log what the server made of a result."""
        self._log.info("result acknowledged", attempt=attempt_id, disposition=disposition)

    def points_dropped(self, count: int) -> None:
        """Log telemetry that a full queue gave up."""
        self._log.warning("telemetry dropped because its queue or the disk is full", points=count)

    def points_refused(self, count: int, reason: str) -> None:
        """Log telemetry that the server refuses for good."""
        self._log.error("telemetry dropped because the server refuses it", points=count, reason=reason)

    def result_refused(self, attempt_id: str, reason: str) -> None:
        """Log a result that the server refuses for good."""
        self._log.error("result refused, sent again without its detail", attempt=attempt_id, reason=reason)

    def output_discarded(self, attempt_id: str) -> None:
        """Log that output is thrown away from here on."""
        self._log.warning("output discarded because the disk is full", attempt=attempt_id)

    def journal_full(self) -> None:
        """Log that the disk is full."""
        self._log.error("the journal's disk is full: no work is taken until there is room; free space on it")

    def journal_has_room(self) -> None:
        """Log that there is room again."""
        self._log.info("the journal has room again: work is taken")

    def points_acknowledged(self, count: int) -> None:
        """Log telemetry that the server has committed."""
        self._log.debug("telemetry acknowledged", points=count)

    def beat_answered(self, latency: timedelta) -> None:
        """Log the time of a beat and its answer."""
        self._log.debug("beat answered", milliseconds=round(latency.total_seconds() * 1000, 3))

    def renewed(self, not_after: str) -> None:
        """Log that a renewed certificate took over."""
        self._log.info("certificate renewed", not_after=not_after)
