"""Use cases of the tasks room."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from controlplane import failpoints
from controlplane.agents.service import AgentsService, Selector
from controlplane.callers import Caller
from controlplane.clock import Clock, to_micros
from controlplane.errors import FailedPrecondition, NotFound, invalid
from controlplane.filtering import PageToken, digest_of_request, read
from controlplane.filtering.page_bytes import fitting
from controlplane.storage.database import Database, Look
from controlplane.storage.gathered_reads import GatheredReads
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.storage.watching import Change, Cursor, Seen, watch
from controlplane.storage.writer import Writer
from controlplane.tasks import retention, rules
from controlplane.tasks.creating import Creations, reused
from controlplane.tasks.operations import Create
from controlplane.tasks.records import AttemptRecord, BatchRecord, Chunk, NewTask, TaskRecord
from controlplane.tasks.rules import Cancellation, TaskState
from controlplane.tasks.store import creation, delivery, ending, reading
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
    """Creation, questions and cancellation of tasks.

    ``woken`` is called with the ids of agents after each commit that gives them
    something to fetch, ``stopping`` after one that wants an attempt of theirs
    stopped: who is stopping looks for work too.
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

    def changed(self) -> None:
        """Tell watchers that some task has changed; called after a commit."""
        self._wakeups.notify(TOPIC)

    # --- creation

    async def create(self, caller: Caller, agent_id: str, new_task: NewTask, request_id: str) -> TaskRecord:
        """Queue a task for one agent.

        Raises ``NotFound`` AGENT_UNKNOWN, and ``InvalidArgument`` REQUEST_ID_REUSED
        where the request_id stands for another content.
        """
        _check_request_id(request_id)
        failpoints.hit("tasks.after_receive")
        digest = _digest(new_task, "agent", agent_id)
        created = await self._writer.submit(
            Create(
                caller.spiffe_id, request_id, digest, secrets.token_hex(16), agent_id, new_task, self._now()
            )
        )
        failpoints.hit("tasks.after_create")
        return created.task or await self.get(created.task_id)

    async def create_batch(
        self,
        caller: Caller,
        selector_text: str,
        new_task: NewTask,
        request_id: str,
        *,
        allow_empty: bool,
    ) -> BatchRecord:
        """Queue the same task for every agent that a selector matches now.

        Raises ``InvalidArgument`` for a selector that does not parse, or that
        matches no agent unless ``allow_empty``.
        """
        _check_request_id(request_id)
        failpoints.hit("tasks.after_receive")
        selector: Selector = self._agents.selector(selector_text)
        digest = _digest(new_task, "selector", selector_text)
        async with self._database.unit_of_work() as work:
            batch_id = await self._made_before(work, caller, request_id, digest)
            if batch_id is None:
                batch_id, now = secrets.token_hex(16), self._now()
                agent_ids = await creation.insert_batch(
                    work, batch_id, selector_text, selector.statement, new_task, caller.spiffe_id, now
                )
                if not agent_ids and not allow_empty:
                    raise invalid(
                        "selector",
                        f"{selector_text!r} matches no agent; list agents with it to see, or set allow_empty",
                        reason="SELECTOR_EMPTY",
                    )
                if request_id:
                    await creation.insert_request(work, caller.spiffe_id, request_id, digest, batch_id, now)
                self._announce(work, agent_ids)
        failpoints.hit("tasks.after_create")
        return (await self.get_batch(batch_id))[0]

    async def _made_before(
        self, work: UnitOfWork, caller: Caller, request_id: str, digest: bytes
    ) -> str | None:
        call = caller.spiffe_id, request_id
        found = (await creation.find_requests(work, [call])).get(call)
        if found is None:
            return None
        known_digest, created_id = found
        if known_digest != digest:
            raise reused(request_id)
        return created_id

    def _announce(self, work: UnitOfWork, agent_ids: Sequence[str]) -> None:
        work.after_commit(self.changed)
        work.after_commit(lambda: self._woken(agent_ids))

    # --- questions

    async def get(self, task_id: str) -> TaskRecord:
        """Return one task. Raises ``NotFound`` TASK_UNKNOWN."""
        found = await self._database.read(lambda connection: reading.task(connection, task_id))
        if found is None:
            raise _unknown("tasks", task_id)
        return found

    async def attempts(self, task_id: str) -> list[AttemptRecord]:
        """Return a task's attempts, oldest first."""
        return await self._database.read(lambda connection: reading.attempts_of(connection, task_id))

    async def get_batch(self, batch_id: str) -> tuple[BatchRecord, list[tuple[TaskState, int]]]:
        """Return a batch and the number of its tasks by state. Raises ``NotFound`` TASK_UNKNOWN."""
        async with self._database.reading() as connection:
            found = await reading.batch(connection, batch_id)
            counts = await reading.batch_counts(connection, batch_id)
        if found is None:
            raise _unknown("taskBatches", batch_id)
        return found, counts

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
                raise _unknown("tasks", task_id)
            decision = rules.cancel(found.task)
            reason = f"cancelled by {caller.spiffe_id}"
            if decision is Cancellation.TOO_LATE:
                raise FailedPrecondition(
                    "TASK_FINAL", f"name: tasks/{task_id} is {found.task.state.name} and can no longer change"
                )
            if decision is Cancellation.NOW:
                await ending.end_tasks(work, [task_id], TaskState.CANCELLED, reason, self._now())
            elif decision is Cancellation.ASK:
                await ending.request_cancel(work, task_id, self._now())
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


def _unknown(collection: str, ident: str) -> NotFound:
    return NotFound(
        "TASK_UNKNOWN", f"name: there is no {collection}/{ident}; list them to see which there are"
    )


def _size(task: TaskRecord) -> int:
    # Texts may have up to four bytes a character.
    texts = len(task.state_reason.encode()) + len(task.progress_message.encode())
    return _TASK_OVERHEAD + len(task.spec) + len(task.result or b"") + texts


def _check_request_id(request_id: str) -> None:
    # SQLite ends a text of JSON there, so that the first call would not be found; PostgreSQL keeps none.
    if "\0" in request_id:
        raise invalid("request_id", "has a NUL character; use a UUID")


def _digest(new_task: NewTask, target: str, value: str) -> bytes:
    content = repr((target, value, new_task.kind, new_task.spec, new_task.options))
    return hashlib.sha256(content.encode()).digest()
