"""What the Telemetry stream asks of the group-commit writer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.agents.service import AgentsService
from controlplane.errors import FailedPrecondition, ServiceError, invalid
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.storage.writer import Writer
from controlplane.telemetry import rules
from controlplane.telemetry.records import PointRecord
from controlplane.telemetry.store import cursors
from controlplane.telemetry.store import points as stored
from controlplane.wakeups import WakeUps

TOPIC = "telemetry"
"""The wake-up that says that points were committed."""


@dataclass(frozen=True, slots=True)
class StoreBatch:
    """A batch of points with consecutive numbers; its outcome is a ``BatchStored``.

    ``dropped`` numbers directly before ``first_sequence`` are declared lost. Refused with
    ``FailedPrecondition`` SEQUENCE_GAP, metadata ``expected_sequence``, where it leaves
    out numbers without declaring them, and SESSION_STALE where the session of ``epoch`` has a successor:
    that one has been told where the journal stands. ``now`` is in microseconds.
    """

    agent_id: str
    epoch: int
    journal_id: str
    first_sequence: int
    dropped: int
    points: tuple[PointRecord, ...]
    now: int

    @property
    def key(self) -> str:
        """What it is about: the telemetry of one journal."""
        return f"telemetry/{self.agent_id}/{self.journal_id}"


@dataclass(frozen=True, slots=True)
class BatchStored:
    """Up to which number the journal is committed, and what became of the batch's points."""

    last_sequence: int
    stored: int
    duplicates: int


def register_operations(writer: Writer, wakeups: WakeUps, agents: AgentsService) -> None:
    """Let ``writer`` apply this room's operations."""

    async def store_batches(
        work: UnitOfWork, operations: Sequence[StoreBatch]
    ) -> Sequence[BatchStored | ServiceError]:
        return await _store_batches(work, operations, wakeups, agents)

    writer.register(StoreBatch, store_batches)


async def _store_batches(
    work: UnitOfWork, operations: Sequence[StoreBatch], wakeups: WakeUps, agents: AgentsService
) -> Sequence[BatchStored | ServiceError]:
    newest = await agents.session_epochs(work.connection, {operation.agent_id for operation in operations})
    journals = {(operation.agent_id, operation.journal_id) for operation in operations}
    known = await cursors.cursors_to_move(work, list(journals))
    outcomes: list[BatchStored | ServiceError] = []
    moved: dict[cursors.Key, cursors.JournalCursor] = {}
    points: list[stored.Batch] = []
    for operation in operations:
        if operation.epoch < newest.get(operation.agent_id, 0):
            outcomes.append(_stale(operation))
            continue
        key = (operation.agent_id, operation.journal_id)
        cursor = known.get(key, cursors.NO_CURSOR)
        placement = _place(cursor.last_sequence, operation)
        if isinstance(placement, ServiceError):
            outcomes.append(placement)
            continue
        fresh = operation.points[placement.duplicates :]
        outcomes.append(BatchStored(placement.last_sequence, len(fresh), placement.duplicates))
        if fresh:
            points.append((operation.agent_id, operation.now, fresh))
        if placement.last_sequence > cursor.last_sequence:
            lost = cursor.dropped_total + placement.lost
            stretches = rules.stretched(cursor.stretches, operation.epoch, cursor.last_sequence)
            moved[key] = cursors.JournalCursor(placement.last_sequence, lost, operation.now, stretches)
    if points:
        await stored.insert_points(work, points)
    if moved:
        await cursors.write_cursors(work, moved)
        work.after_commit(lambda: wakeups.notify(TOPIC))
    return outcomes


def _stale(operation: StoreBatch) -> ServiceError:
    return FailedPrecondition(
        "SESSION_STALE",
        f"a newer session of {operation.agent_id} was opened: the batch is not stored; say Hello again",
        metadata={"session_epoch": str(operation.epoch)},
    )


def _place(last_sequence: int, operation: StoreBatch) -> rules.Placement | ServiceError:
    try:
        return rules.place(last_sequence, operation.first_sequence, operation.dropped, len(operation.points))
    except rules.SequenceGap as gap:
        return FailedPrecondition(
            "SEQUENCE_GAP",
            f"batch.first_sequence: {operation.first_sequence} with {operation.dropped} dropped leaves out "
            f"numbers from {gap.expected} on: send those, or declare them dropped",
            metadata={"expected_sequence": str(gap.expected)},
        )
    except rules.SequenceTooLarge as error:
        return invalid("batch.first_sequence", str(error))
