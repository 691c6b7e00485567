"""Deploying packages: install tasks for the agents that a selector chooses, and where each of them stands.

A deployment is the book that this room keeps of an install task: made with it, written in the transactions in
which the task changes or its agent says something, and kept when the task no longer is. The room of tasks
delivers; what an agent trusts is what it fetches and verifies itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import structlog

from controlplane.callers import Caller
from controlplane.clock import to_micros
from controlplane.errors import FailedPrecondition, NotFound
from controlplane.filtering import BoundFilter
from controlplane.packaging.deployment import rules
from controlplane.packaging.deployment.rules import DeploymentStatus, Said, Standing, TaskStanding, Work
from controlplane.packaging.store import deployments as stored
from controlplane.packaging.store.deployments import (
    Connection,
    DeploymentRecord,
    Followed,
    FollowedTasks,
    Holder,
)
from controlplane.storage.database import Database
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.tasks.creating import digest_of
from controlplane.tasks.delivery import Delivery
from controlplane.tasks.messages import INSTALL, install_of, install_task
from controlplane.tasks.records import BatchRecord, Chosen, Install, NewTask, Options, TaskReport
from controlplane.tasks.rules import TaskState
from controlplane.tasks.service import TasksService

FILTER = stored.FILTER
"""What a filter over deployments may name."""

_STEP = 500
"""Deployments that one transaction mends or deletes."""

_HOLDERS_AT_ONCE = 10_000
_PRUNED_AT_ONCE = 10_000

_log = structlog.get_logger(__name__)


class Deployments:
    """Use cases around deployments. Follows the tasks of the kind ``install`` from its making on."""

    def __init__(self, database: Database, tasks: TasksService, delivery: Delivery) -> None:
        self._database = database
        self._tasks = tasks
        for following in (tasks.following, delivery.following):
            following.follow(INSTALL, self)

    # --- deploying

    async def deploy(
        self,
        caller: Caller,
        package: str,
        chosen: Chosen,
        options: Options,
        request_id: str,
        *,
        allow_empty: bool,
    ) -> BatchRecord:
        """Queue the installation of a package, by its digest, for every agent that is chosen now.

        Raises ``NotFound`` PACKAGE_UNKNOWN, ``FailedPrecondition`` PACKAGE_NOT_RELEASED, and what
        ``Batches.create`` raises. The same ``request_id`` gives the same batch, also when the package has
        been withdrawn since.
        """

        async def make(work: UnitOfWork) -> NewTask:
            return install_task(await self._released(work, package), options)

        digest = digest_of("deploy", package, chosen, options)
        batch = await self._tasks.batches.create_made(
            caller, chosen, make, request_id, digest, allow_empty=allow_empty
        )
        _log.info("package deployed", package=package, batch=batch.batch_id, agents=batch.target_count)
        return batch

    async def _released(self, work: UnitOfWork, package: str) -> Install:
        found = await stored.releasable(work.connection, package)
        if found is None:
            raise NotFound(
                "PACKAGE_UNKNOWN",
                f"package: there is no packages/{package}; list packages to see which there are",
            )
        if not found.decision.releases:
            raise _not_released(package, f"policy says {found.decision.name} of it: see its decision_reasons")
        if not found.target_path:
            raise _not_released(
                package, "it is in no channel: its pipeline has not stored it, or it was withdrawn"
            )
        return Install(package, found.target_path, found.package_name, found.version)

    # --- questions

    async def page(
        self, chosen: BoundFilter, before: tuple[int, str] | None, limit: int
    ) -> Sequence[DeploymentRecord]:
        """Return deployments that match, the last change first, after (status_time, task_id) ``before``."""
        return await self._database.read(lambda connection: stored.page(connection, chosen, before, limit))

    async def count(self, chosen: BoundFilter) -> int:
        """Return how many deployments match."""
        return await self._database.read(lambda connection: stored.count(connection, chosen))

    async def status_counts(self, chosen: BoundFilter) -> Mapping[DeploymentStatus, int]:
        """Return how many of the deployments that match stand how; for rings and their thresholds."""
        return await self._database.read(lambda connection: stored.status_counts(connection, chosen))

    async def agents_having(self, package: str) -> Sequence[Holder]:
        """Return the agents that have a package now, by their ids.

        An agent has what was installed last of a name: what failed or was rolled back since took it from
        nobody. Of an installation that is under way nothing is said.
        """
        found: list[Holder] = []
        while True:
            after = found[-1].agent_id if found else ""
            some = await self._holders(package, after)
            found += some
            if len(some) < _HOLDERS_AT_ONCE:
                return found

    async def _holders(self, package: str, after: str) -> Sequence[Holder]:
        return await self._database.read(
            lambda connection: stored.holders(connection, package, after, _HOLDERS_AT_ONCE)
        )

    async def installed_counts(self, packages: Sequence[str]) -> Mapping[str, int]:
        """Return on how many agents each of at most 1,000 packages is now, by digest; not named: on none."""
        return await self._database.read(lambda connection: stored.installed_counts(connection, packages))

    # --- what the room of tasks tells, see ``Follower``

    async def created(self, work: UnitOfWork, made: FollowedTasks, spec: bytes) -> None:
        """Begin the deployments of tasks that were made for a package."""
        install = install_of(spec)
        await stored.insert_made(work, made, install.package, install.package_name, install.version)

    async def replayed(self, work: UnitOfWork, made: FollowedTasks) -> None:
        """Begin the deployments of tasks that replay others."""
        await stored.insert_replayed(work, made)

    async def changed(self, work: UnitOfWork, tasks: FollowedTasks, reports: Sequence[TaskReport]) -> None:
        """Write where deployments stand whose task changed, or of which an agent spoke."""
        said: dict[str, list[Said]] = {}
        for report in reports:
            said.setdefault(report.task_id, []).append(_said(report))
        found = await stored.followed(work, tasks)
        await self._write(work, [(one, said.get(one.task_id, ())) for one in found])

    async def _write(self, work: UnitOfWork, told: Sequence[tuple[Followed, Sequence[Said]]]) -> int:
        standings: dict[str, Standing] = {}
        for one, said in told:
            standing = rules.after(one.standing, _task_standing(one), said)
            if standing != one.standing:
                standings[one.task_id] = standing
        await stored.write(work, standings)
        return len(standings)

    async def agent_deleted(self, work: UnitOfWork, agent_id: str, _now: datetime) -> int:
        """Forget the deployments of an agent that is being deleted; a hook of ``AgentsService.on_delete``."""
        await stored.delete_of_agent(work, agent_id)
        return 0

    # --- schedules

    async def reconcile(self) -> int:
        """End deployments whose task has ended without a word, or is no longer kept; returns how many.

        What changes a task says so in its transaction, except where a task of another kind supersedes one:
        nothing looks for that as it happens.
        """
        mended = 0
        # Most often there is none, and who writes does not wait for the look.
        while await self._database.read(lambda connection: self._left_behind(connection, 1)):
            mended += await self._database.transact(self._reconcile_some)
        return mended

    async def _left_behind(self, connection: Connection, limit: int) -> Sequence[Followed]:
        tasks = self._tasks.following.tasks_of(INSTALL)
        return await stored.left_behind(connection, tasks, int(TaskState.SUCCEEDED), limit)

    async def _reconcile_some(self, work: UnitOfWork) -> int:
        found = await self._left_behind(work.connection, _STEP)
        return await self._write(work, [(one, ()) for one in found])

    async def prune(self, before: datetime) -> int:
        """Delete deployments that ended before an instant and were overtaken since; returns how many.

        What an agent has, and what was last tried with it, is kept for ever.
        """
        oldest, deleted = to_micros(before), 0
        while True:
            task_ids = await self._database.read(
                lambda connection: stored.overtaken(connection, oldest, _PRUNED_AT_ONCE)
            )
            for start in range(0, len(task_ids), _STEP):
                async with self._database.unit_of_work() as work:
                    some = task_ids[start : start + _STEP]
                    deleted += await stored.delete_overtaken(work, some, oldest)
            if len(task_ids) < _PRUNED_AT_ONCE:
                return deleted


def _not_released(package: str, why: str) -> FailedPrecondition:
    return FailedPrecondition(
        "PACKAGE_NOT_RELEASED", f"package: agents cannot have packages/{package}: {why}"
    )


def _said(report: TaskReport) -> Said:
    outcome = report.outcome.name if report.outcome is not None else ""
    return Said(report.status, report.time, outcome, report.reason, report.reason_code)


def _task_standing(one: Followed) -> TaskStanding:
    if one.state is None:
        return TaskStanding(
            Work.ENDED, "TASK_GONE", one.standing.time, "its task is no longer kept, and no result of it came"
        )
    state = TaskState(one.state)
    work = (
        Work.ENDED
        if state >= TaskState.SUCCEEDED
        else Work.RUNS
        if state is TaskState.RUNNING
        else Work.WAITS
    )
    return TaskStanding(work, state.name, one.state_time, one.state_reason)
