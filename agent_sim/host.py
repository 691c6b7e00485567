"""The port between the protocol and the machine that it runs on.

The protocol engine knows sessions, journals and streams; a host knows how to do
work and what to measure. The reference agent brings a real host, the simulated
fleet an invented one, and both run the same protocol code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fleetwright.v1 import agent_service_pb2, work_pb2


class AttemptReporter(Protocol):
    """What a running attempt may say before it ends."""

    async def output(self, stream: work_pb2.OutputStream.ValueType, data: bytes) -> None:
        """Journal ``data`` (any length; it is cut into chunks) as the next bytes of ``stream``.

        Waits while the journal is behind, which is how output is held back.
        """

    def progress(self, percent: int, message: str) -> None:
        """Report how far the attempt is, 0 to 100; the newest report replaces one not sent yet."""


class Host(Protocol):
    """A machine, real or simulated."""

    def facts(self) -> work_pb2.HostFacts:
        """Return what identifies the operating system and the machine."""

    def task_kinds(self) -> Sequence[str]:
        """Return the field names of TaskSpec that this host knows and its policy allows."""

    def inventory_digest(self) -> str:
        """Return the digest of the last inventory taken, or "" where none was."""

    async def sample(self) -> Sequence[work_pb2.TelemetryPoint]:
        """Measure once. Must not block the event loop."""

    async def run(
        self, assignment: agent_service_pb2.Assignment, reporter: AttemptReporter
    ) -> work_pb2.AttemptResult:
        """Do the work of one attempt and return how it ended.

        Never raises for what the work does: that is an outcome with a reason.
        A kind that is unknown, or that the host's own policy forbids, is REFUSED
        with nothing done. Cancelling the task that runs this is the request to
        stop: stop the work, clean up, and let ``asyncio.CancelledError`` out;
        the engine reports CANCELLED, or TIMED_OUT where its run limit ended it.
        """
