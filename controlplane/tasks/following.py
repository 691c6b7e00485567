"""Rooms that keep a book of their own about the tasks of a kind, told in the transaction of each change.

A task of a kind that nobody follows costs a look into a dictionary that is empty or has one entry. Of one
that is followed, the room hears just before the commit: what its tasks are then, after all that the
transaction did, and what agents said of them meanwhile. It may hear the same twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.tasks.operations import Finish, Progress
from controlplane.tasks.records import BatchRecord, TaskReport
from controlplane.tasks.store import following as store
from controlplane.tasks.store.delivery import AttemptWithTask
from controlplane.tasks.store.following import FollowedTasks


class Follower(Protocol):
    """What a room that follows a kind is told.

    Each runs in the transaction of what it tells of, and may wait for that transaction alone. It must not
    fail for one of the tasks: the whole transaction would.
    """

    async def created(self, work: UnitOfWork, made: FollowedTasks, spec: bytes) -> None:
        """Tasks were made, all with this spec, the contract's TaskSpec in wire form."""

    async def replayed(self, work: UnitOfWork, made: FollowedTasks) -> None:
        """Tasks were made that replay others: ``made`` has the former one's id as ``replay_of``."""

    async def changed(self, work: UnitOfWork, tasks: FollowedTasks, reports: Sequence[TaskReport]) -> None:
        """Tasks changed, or their agents ``reported``, in the order in which that came."""


class Followers:
    """Who follows which kind."""

    def __init__(self) -> None:
        self._by_kind: dict[str, Follower] = {}

    def follow(self, kind: str, follower: Follower) -> None:
        """Tell ``follower`` of all tasks of a kind from now on. Raises ``ValueError`` for a second one."""
        if kind in self._by_kind:
            raise ValueError(f"{kind} has a follower already")
        self._by_kind[kind] = follower

    def changed(self, work: UnitOfWork, kinds: Iterable[str]) -> None:
        """Note that tasks of ``kinds`` may have changed in this transaction."""
        if self._by_kind:
            work.before_commit(self._tell, [(kind, None) for kind in self._by_kind.keys() & set(kinds)])

    def anything_changed(self, work: UnitOfWork) -> None:
        """Note that tasks of any kind may have changed, for statements that do not say which."""
        self.changed(work, self._by_kind)

    def progressed(self, work: UnitOfWork, told: Iterable[tuple[Progress, AttemptWithTask]]) -> None:
        """Note what agents say of attempts that run; what says no status is no news."""
        self._reported(
            work,
            [
                (attempt.kind, TaskReport(attempt.task_id, operation.deployment_status, operation.now))
                for operation, attempt in told
                if operation.deployment_status and attempt.kind in self._by_kind
            ],
        )

    def finished(self, work: UnitOfWork, told: Iterable[tuple[Finish, AttemptWithTask]]) -> None:
        """Note how agents say that attempts ended, also where the task is decided already."""
        self._reported(
            work,
            [
                (attempt.kind, _of_result(operation, attempt))
                for operation, attempt in told
                if attempt.kind in self._by_kind
            ],
        )

    def _reported(self, work: UnitOfWork, reports: Sequence[tuple[str, TaskReport]]) -> None:
        work.before_commit(self._tell, reports)

    async def _tell(self, work: UnitOfWork, notes: list[tuple[str, TaskReport | None]]) -> None:
        by_kind: dict[str, list[TaskReport]] = {}
        for kind, report in notes:
            by_kind.setdefault(kind, []).extend([report] if report else [])
        for kind, reports in by_kind.items():
            tasks = store.changed(kind, await work.revision(), {report.task_id for report in reports})
            await self._by_kind[kind].changed(work, tasks, reports)

    async def slice_made(self, work: UnitOfWork, batch: BatchRecord) -> None:
        """Tell of the tasks of a batch that this transaction has just made."""
        follower = self._by_kind.get(batch.new_task.kind)
        if follower is not None:
            made = store.slice_of(batch.batch_id, await work.revision())
            await follower.created(work, made, batch.new_task.spec)
            # One whose agent is offline, or that came too late, has ended as it was made.
            self.changed(work, [batch.new_task.kind])

    async def replays_made(self, work: UnitOfWork, kinds: Iterable[str]) -> None:
        """Tell of the replays that this transaction has just made."""
        for kind in self._by_kind.keys() & set(kinds):
            await self._by_kind[kind].replayed(work, store.replays(kind, await work.revision()))
            self.changed(work, [kind])

    def tasks_of(self, kind: str) -> FollowedTasks:
        """Return all tasks of a kind that there are, as a part of another room's statement."""
        return store.all_of(kind)


def _of_result(operation: Finish, attempt: AttemptWithTask) -> TaskReport:
    said = operation.install
    return TaskReport(
        attempt.task_id,
        said.status if said else 0,
        operation.now,
        operation.outcome,
        operation.reason,
        said.reason_code if said else "",
    )
