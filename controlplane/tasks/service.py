"""Use cases of the tasks room."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from controlplane import failpoints
from controlplane.agents.service import AgentsService
from controlplane.callers import Caller
from controlplane.clock import Clock, to_micros
from controlplane.errors import FailedPrecondition
from controlplane.filtering import PageToken, digest_of_request, read
from controlplane.filtering.page_bytes import fitting
from controlplane.ids import new_id
from controlplane.storage.database import Database, Look
from controlplane.storage.gathered_reads import GatheredReads
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.storage.watching import Change, Cursor, Seen, watch
from controlplane.storage.writer import Writer
from controlplane.tasks import retention, rules
from controlplane.tasks.batches import SLICE, Batches
from controlplane.tasks.creating import Creations, check_request_id, digest_of, unknown
from controlplane.tasks.following import Followers
from controlplane.tasks.ledger import noting
from controlplane.tasks.operations import Create
from controlplane.tasks.planning import plan
from controlplane.tasks.records import AttemptRecord, Chunk, NewTask, TaskRecord
from controlplane.tasks.replays import Replays
from controlplane.tasks.rules import Cancellation, TaskState
from controlplane.tasks.store import delivery, ending, reading
from controlplane.wakeups import WakeUps

DEFAULT_PAGE = 100
MAX_PAGE = 1_000
REQUEST_MEMORY = timedelta(hours=48)
"""How long a request_id is remembered; the contract promises 24 h."""

_OUTPUT_PAGE = 32  # chunks of at most 64 KiB each: 2 MiB in memory for one reader

_TASK_OVERHEAD = 1_024  # bytes of a task's other fields, most of them short

TOPIC = "tasks"


@dataclass(frozen=True, slots=True)
class TaskPage:
    """A page of tasks; ``total`` is 0 on all pages but the first."""

    tasks: Sequence[TaskRecord]
    next_page_token: str
    total: int


@dataclass(frozen=True, slots=True)
class Depth:
    """How many tasks are in a state, and the age of the oldest, since its creation."""

    count: int
    oldest: timedelta


class TasksService:
    """Creation, questions and cancellation of tasks; ``batches`` and ``replays`` have their own.

    ``woken`` is called with the ids of agents after each commit that gives them
    something to fetch, ``stopping`` after one that wants an attempt of theirs
    stopped: who is stopping looks for work too. ``following`` are the rooms that
    are told of tasks of a kind; see ``Delivery.following``.
    """

    def __init__(
        self,
        database: Database,
        writer: Writer,
        agents: AgentsService,
        wakeups: WakeUps,
        clock: Clock,
        token_secret: bytes,
        woken: Callable[[Iterable[str]], None],
        stopping: Callable[[Iterable[str]], None],
        batch_slice: int = SLICE,
    ) -> None:
        self._database = database
        self._writer = writer
        self._agents = agents
        self._wakeups = wakeups
        self._clock = clock
        self._token_secret = token_secret
        self._woken = woken
        self._stopping = stopping
        self._with_work: GatheredReads[str, bool] = GatheredReads(database, self._read_work)
        writer.register(Create, Creations(agents, self._announce).create)
        self.following = Followers()
        self.batches = Batches(
            database, agents, clock, self._announce, self.changed, stopping, batch_slice, self.following
        )
        self.replays = Replays(database, agents, clock, self._announce, self.following)

    def changed(self) -> None:
        """Tell watchers that some task has changed; called after a commit."""
        self._wakeups.notify(TOPIC)

    # --- creation

    async def create(self, caller: Caller, agent_id: str, new_task: NewTask, request_id: str) -> TaskRecord:
        """Queue a task for one agent.

        Raises ``NotFound`` AGENT_UNKNOWN, and ``InvalidArgument`` for options that do not
        fit together, and REQUEST_ID_REUSED where the request_id stands for another content.
        """
        check_request_id(request_id)
        failpoints.hit("tasks.after_receive")
        digest = digest_of("agent", agent_id, new_task.kind, new_task.spec, new_task.options)
        now = self._now()
        task_id = new_id(now)
        due = plan(new_task.options, now)
        created = await self._writer.submit(
            Create(caller.spiffe_id, request_id, digest, task_id, agent_id, new_task, due, now)
        )
        failpoints.hit("tasks.after_create")
        return created.task or await self.get(created.task_id)

    def _announce(self, work: UnitOfWork, agent_ids: Sequence[str]) -> None:
        work.after_commit(self.changed)
        work.after_commit(lambda: self._woken(agent_ids))

    # --- questions

    async def get(self, task_id: str) -> TaskRecord:
        """Return one task. Raises ``NotFound`` TASK_UNKNOWN."""
        found = await self._database.read(lambda connection: reading.task(connection, task_id))
        if found is None:
            raise unknown("tasks", task_id)
        return found

    async def attempts(self, task_id: str) -> list[AttemptRecord]:
        """Return a task's attempts, oldest first."""
        return await self._database.read(lambda connection: reading.attempts_of(connection, task_id))

    async def list_tasks(self, filter_text: str, page_size: int, page_token: str) -> TaskPage:
        """Return a page of tasks, newest first.

        ``page_size`` 0 is the default; a page of large tasks may have fewer. Raises
        ``InvalidArgument`` FILTER_INVALID and PAGE_TOKEN_INVALID.
        """
        chosen = read(filter_text, reading.FILTER)
        request = digest_of_request({"filter": filter_text})
        after = self._after(page_token, "tasks", request, "page_token")
        size = min(page_size, MAX_PAGE) or DEFAULT_PAGE
        async with self._database.reading() as connection:
            rows = await reading.page(connection, chosen, after, size + 1)
            total = 0 if page_token else await reading.count(connection, chosen)
        tasks = fitting(rows[:size], _size)
        token = ""
        if len(tasks) < len(rows):
            last = tasks[-1]
            token = PageToken("tasks", request, (last.create_time, last.task_id)).encode(self._token_secret)
        return TaskPage(tasks, token, total)

    async def watch(
        self, filter_text: str, resume_token: str
    ) -> AsyncGenerator[tuple[Change, TaskRecord | None, str], None]:
        """Yield (change, task, resume token): what matches, then what changes, for ever."""
        chosen = read(filter_text, reading.FILTER)
        request = digest_of_request({"filter": filter_text})
        resume = self._after(resume_token, "tasks.watch", request, "resume_token")

        async def above(cursor: Cursor, limit: int) -> Look[Seen[TaskRecord]]:
            return await self._database.look(
                lambda connection: reading.changed(connection, chosen, cursor, limit),
                lambda seen: seen.revision,
            )

        async for change, task, cursor in watch(self._wakeups, TOPIC, resume, above):
            yield change, task, PageToken("tasks.watch", request, cursor).encode(self._token_secret)

    def _after(self, token: str, kind: str, request: bytes, field: str) -> tuple[int, str] | None:
        if not token:
            return None
        number, ident = PageToken.decode(
            token, kind=kind, request=request, secret=self._token_secret, field=field
        ).key
        return int(number), str(ident)

    async def output(self, task_id: str, stream: int) -> AsyncGenerator[Chunk, None]:
        """Yield the output of a task's last attempt that has any, in the order it came."""
        await self.get(task_id)
        last = 0
        async with self._database.reading() as connection:
            attempt_id = await reading.output_attempt(connection, task_id)
        while attempt_id is not None:
            async with self._database.reading() as connection:
                chunks = await reading.output(connection, attempt_id, stream, last, _OUTPUT_PAGE)
            for last, chunk in chunks:  # noqa: B007 - the last id is where the next page begins
                yield chunk
            if len(chunks) < _OUTPUT_PAGE:
                return

    async def depths(self) -> dict[TaskState, Depth]:
        """Return how many tasks are in each open state, and how old the oldest is."""
        async with self._database.reading() as connection:
            found = await reading.depths(connection)
        now = self._now()
        return {
            state: Depth(count, timedelta(microseconds=max(0, now - created)))
            for state in rules.OPEN
            for count, created in (found.get(state, (0, now)),)
        }

    async def has_work(self, agent_id: str) -> bool:
        """Return whether an agent has something to fetch now."""
        return bool(await self._with_work.find(agent_id))

    async def _read_work(
        self, connection: delivery.Connection, agent_ids: Sequence[str]
    ) -> Mapping[str, bool]:
        return dict.fromkeys(await delivery.having_work(connection, agent_ids, self._now()), True)

    async def cancellations(self, agent_id: str) -> list[str]:
        """Return the ids of an agent's live attempts that it should be asked to stop."""
        return await self._database.read(lambda connection: delivery.cancellations(connection, agent_id))

    async def wake_waiting(self, wake: Callable[[Iterable[str]], None] | None = None) -> None:
        """Wake all agents that have something to do: finds due retries and wake-ups that were lost.

        ``wake`` is who wakes those that are connected to this process, where others do the same for theirs.
        """
        now = self._now()
        agent_ids = await self._database.read(lambda connection: delivery.agents_with_work(connection, now))
        (wake or self._stopping)(agent_ids)

    # --- retention

    async def prune(self, before: datetime) -> int:
        """Delete tasks that are final since before an instant; returns how many. See ``retention``."""
        return await retention.prune(self._database, before)

    # --- cancellation

    async def cancel(self, caller: Caller, task_id: str) -> TaskRecord:
        """End a task: at once while it is queued, by asking the agent otherwise.

        Raises ``NotFound`` TASK_UNKNOWN, ``FailedPrecondition`` TASK_FINAL where it
        has ended in another way.
        """
        async with self._database.unit_of_work() as work:
            found = await ending.task_to_cancel(work, task_id)
            if found is None:
                raise unknown("tasks", task_id)
            decision = rules.cancel(found.task)
            reason = f"cancelled by {caller.spiffe_id}"
            if decision is Cancellation.TOO_LATE:
                raise FailedPrecondition(
                    "TASK_FINAL", f"name: tasks/{task_id} is {found.task.state.name} and can no longer change"
                )
            if decision is Cancellation.NOW:
                await ending.end_tasks(work, [task_id], TaskState.CANCELLED, reason, self._now())
                self.following.changed(work, [found.kind])
            elif decision is Cancellation.ASK:
                await ending.request_cancel(work, task_id, self._now())
                noting.cancel_requested(work, task_id, found.agent_id, reason, self._now())
                work.after_commit(lambda: self._stopping([found.agent_id]))
            work.after_commit(self.changed)
        return await self.get(task_id)

    async def cancel_for_agent(self, work: UnitOfWork, agent_id: str, now: datetime) -> int:
        """Cancel every task of an agent that is being deleted; returns how many."""
        micros = to_micros(now)
        task_ids = await ending.open_task_ids(work, agent_id)
        await ending.end_attempts_of(work, task_ids, rules.AttemptState.ABANDONED, micros)
        await ending.end_tasks(work, task_ids, TaskState.CANCELLED, "its agent was deleted", micros)
        work.after_commit(self.changed)
        return len(task_ids)

    def _now(self) -> int:
        return to_micros(self._clock.now())


def _size(task: TaskRecord) -> int:
    # Texts may have up to four bytes a character.
    texts = len(task.state_reason.encode()) + len(task.progress_message.encode())
    return _TASK_OVERHEAD + len(task.spec) + len(task.result or b"") + texts
