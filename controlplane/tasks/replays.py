"""Replays: tasks that ended without success are created anew; the old ones stay what they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from controlplane.agents.service import AgentsService
from controlplane.callers import Caller
from controlplane.clock import Clock, to_micros
from controlplane.errors import FailedPrecondition, NotFound
from controlplane.filtering import read
from controlplane.ids import new_id
from controlplane.storage.database import Database
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.tasks import rules
from controlplane.tasks.creating import check_request_id, digest_of, made_before, unknown
from controlplane.tasks.following import Followers
from controlplane.tasks.rules import TaskState
from controlplane.tasks.store import creation, reading, replaying

AT_ONCE = 1_000
"""Tasks that one call replays: one transaction, for which agents wait."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """How many tasks a call replayed, and whether there may be more."""

    count: int
    more: bool


class Replays:
    """Use cases of replays. ``announce`` is told of agents that got work, before the commit."""

    def __init__(
        self,
        database: Database,
        agents: AgentsService,
        clock: Clock,
        announce: Callable[[UnitOfWork, Sequence[str]], None],
        following: Followers,
    ) -> None:
        self._following = following
        self._database = database
        self._agents = agents
        self._clock = clock
        self._announce = announce

    async def replay(self, caller: Caller, task_id: str, request_id: str) -> str:
        """Create a task anew; returns the id of the new one.

        Raises ``NotFound`` TASK_UNKNOWN, and AGENT_UNKNOWN where its agent was deleted,
        ``FailedPrecondition`` TASK_NOT_REPLAYABLE, and ``InvalidArgument`` REQUEST_ID_REUSED.
        """
        check_request_id(request_id)
        digest = digest_of("replay", task_id)
        async with self._database.unit_of_work() as work:
            before = await made_before(work, caller, request_id, digest)
            if before is not None:
                return before
            await self._check(work, task_id)
            (made,) = await self._insert(work, caller, replaying.one(task_id), 1)
            if request_id:
                await creation.insert_request(
                    work, caller.spiffe_id, request_id, digest, made.task_id, self._now()
                )
        return str(made.task_id)

    async def replay_matching(self, caller: Caller, filter_text: str, request_id: str) -> Replayed:
        """Create anew what matches, the oldest first, except what cannot be replayed or has been before.

        Raises ``InvalidArgument`` FILTER_INVALID and REQUEST_ID_REUSED.
        """
        check_request_id(request_id)
        chosen = read(filter_text, reading.FILTER)
        digest = digest_of("replay all", filter_text)
        async with self._database.unit_of_work() as work:
            before = await made_before(work, caller, request_id, digest)
            if before is not None:
                return _replayed(int(before))
            made = await self._insert(work, caller, replaying.matching(chosen), AT_ONCE)
            if request_id:
                # What the call made is a number here.
                count = str(len(made))
                await creation.insert_request(work, caller.spiffe_id, request_id, digest, count, self._now())
        return _replayed(len(made))

    async def _check(self, work: UnitOfWork, task_id: str) -> None:
        found = await replaying.task_to_replay(work, task_id)
        if found is None:
            raise unknown("tasks", task_id)
        if found.state not in rules.REPLAYABLE:
            why = "has succeeded" if found.state is TaskState.SUCCEEDED else "has not ended"
            raise _refused(task_id, f"is {found.state.name}: it {why}")
        if found.has_later:
            raise _refused(
                task_id, "is not the latest of its supersede_key: replay that one, or create another"
            )
        presence = (await self._agents.presences(work.connection, [found.agent_id], field="name", lock=True))[
            found.agent_id
        ]
        if isinstance(presence, NotFound):
            raise presence

    async def _insert(
        self, work: UnitOfWork, caller: Caller, chosen: replaying.Condition, limit: int
    ) -> Sequence[replaying.Made]:
        now = self._now()
        made = await replaying.insert_replays(
            work, chosen, self._agents.living(), new_id(now), caller.spiffe_id, now, limit
        )
        if made:
            await self._following.replays_made(work, {row.kind for row in made})
            self._announce(work, [row.agent_id for row in made if row.state is TaskState.QUEUED])
        return made

    def _now(self) -> int:
        return to_micros(self._clock.now())


def _replayed(count: int) -> Replayed:
    return Replayed(count, more=count == AT_ONCE)


def _refused(task_id: str, why: str) -> FailedPrecondition:
    return FailedPrecondition("TASK_NOT_REPLAYABLE", f"name: tasks/{task_id} {why}")
