"""What an engine tells whoever watches it: the agent's log, or the simulated fleet's counters."""

from __future__ import annotations

from datetime import timedelta

from fleetwright.v1 import agent_service_pb2


class Observer:
    """Hears what happens; every method does nothing until overridden, and none may block or raise."""

    def connected(self, epoch: int) -> None:
        """Note that the server welcomed a session."""

    def disconnected(self, reason: str) -> None:
        """Note that the session ended; ``reason`` is an ErrorReason, a ReconnectReason or a word."""

    def failed(self, reason: str, detail: str) -> None:
        """Note a failed call or stream: its ErrorReason or status code, and the server's words."""

    def assignment_received(self, assignment: agent_service_pb2.Assignment) -> None:
        """Note an assignment, before it is journalled; duplicates included."""

    def attempt_finished(self, attempt_id: str, outcome: str) -> None:
        """Note that an attempt's result is in the journal."""

    def result_acknowledged(self, attempt_id: str, disposition: str) -> None:
        """Note COMMITTED, DUPLICATE or REJECTED for a result."""

    def points_sent(self, count: int) -> None:
        """Note telemetry points written to the stream; a point sent twice counts twice."""

    def points_answered(self, last_sequence: int) -> None:
        """Note that the server has committed all points up to a number; before they are forgotten."""

    def points_resumed(self, last_sequence: int) -> None:
        """Note that a stream begins: what was sent is committed up to a number; all else is sent again."""

    def points_acknowledged(self, count: int) -> None:
        """Note telemetry points that the server has committed, once they are forgotten."""

    def points_dropped(self, count: int) -> None:
        """Note telemetry points that a full queue, or a full disk, gave up."""

    def points_refused(self, count: int, reason: str) -> None:
        """Note telemetry points that were given up because the server refuses them for good."""

    def result_refused(self, attempt_id: str, reason: str) -> None:
        """Note a result that the server refuses for good; one without its detail takes its place."""

    def output_discarded(self, attempt_id: str) -> None:
        """Note that the output of an attempt is thrown away from here on, for want of room."""

    def journal_full(self) -> None:
        """Note that the disk has no room: no work is taken, and telemetry gives way."""

    def journal_has_room(self) -> None:
        """Note that there is room again."""

    def beat_answered(self, latency: timedelta) -> None:
        """Note the time between a beat and its acknowledgement."""

    def renewed(self, not_after: str) -> None:
        """Note that a renewed certificate took over; ``not_after`` in ISO 8601."""
