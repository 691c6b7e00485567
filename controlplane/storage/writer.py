"""The group-commit writer: what agents stream and calls create, many operations in one transaction.

While one transaction is being synced, the operations of the next one gather. An
idle writer commits at once, a busy one up to ``MAX_OPERATIONS`` together, so the
price of a sync is shared without anyone waiting for a timer.

Order: operations of the same ``key`` take effect in the order they were
submitted. Inside a transaction they are laid into waves, the n-th operation of a
key into wave n; within a wave all operations of one type go to their applier as
one list, which answers with one outcome each and may use set-based statements.

Isolation: when an applier raises, the group is rolled back and done again with each
list in a savepoint, in which the operations of a list that fails are tried one by
one, so that a poisonous one fails alone.

A group is applied in the thread of the writing connection, in one hop: appliers wait
for their unit of work and for nothing else, and leave what belongs to the event loop
to ``UnitOfWork.after_commit``.
"""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, Generic, Protocol, TypeVar

import structlog
from sqlalchemy.exc import DBAPIError

from controlplane import failpoints
from controlplane.errors import ServiceError, Unavailable
from controlplane.storage.database import Database
from controlplane.storage.unit_of_work import TransactionLostError, UnitOfWork

MAX_OPERATIONS = 1_000
"""Operations in one transaction: above this a commit's cost is no longer the sync."""

MAX_QUEUED = 20_000
"""Operations waiting; a submitter beyond waits, which holds back the stream that it reads."""

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_log = structlog.get_logger(__name__)


class Operation(Protocol[R_co]):
    """One change that an agent's stream or an administrator's call asks for; ``R`` is its outcome."""

    @property
    def key(self) -> str:
        """What it is about; operations of one key keep their order."""


Applier = Callable[[UnitOfWork, Sequence[Any]], Awaitable[Sequence[Any]]]
"""Applies operations of one type. Returns one outcome each, in order: a value, or a
``ServiceError`` for one that is refused and changed nothing."""


_Apply = Callable[[UnitOfWork, type, list[Any]], Awaitable[Sequence[Any]]]


class _GroupFailedError(Exception):
    """An applier raised; nothing of the group stands."""


@dataclass(slots=True)
class _Pending(Generic[R]):
    operation: Operation[R]
    done: asyncio.Future[R]


class Writer:
    """Commits operations in groups. ``run`` must be running for ``submit`` to return."""

    def __init__(self, database: Database, observe: Callable[[int, float], None] | None = None) -> None:
        self._database = database
        self._appliers: dict[type, Applier] = {}
        self._queue: asyncio.Queue[_Pending[Any]] = asyncio.Queue(MAX_QUEUED)
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._observe = observe or (lambda _size, _seconds: None)

    @property
    def queued(self) -> int:
        """How many operations wait for a commit; those of the one under way do not."""
        return self._queue.qsize()

    def register(self, kind: type, applier: Applier) -> None:
        """Say who applies operations of type ``kind``."""
        if kind in self._appliers:
            raise ValueError(f"{kind.__name__} has an applier already")
        self._appliers[kind] = applier

    async def enqueue(self, operation: Operation[R]) -> asyncio.Future[R]:
        """Take ``operation`` into the queue and return the future of its outcome.

        Waits only where the queue is full. The future ends after the commit: with
        the outcome, the ``ServiceError`` that refused it, ``Unavailable`` where
        nothing can be written, or whatever its applier raised for it alone.
        """
        if type(operation) not in self._appliers:
            raise LookupError(f"{type(operation).__name__} has no applier")
        if self._closed:
            raise Unavailable("UNAVAILABLE", "the server is stopping")
        if self._loop is None:
            # Asked once: the question asks the kernel for this process's id each time, in Python 3.11.
            self._loop = asyncio.get_running_loop()
        done: asyncio.Future[R] = self._loop.create_future()
        await self._queue.put(_Pending(operation, done))
        return done

    async def submit(self, operation: Operation[R]) -> R:
        """Return the outcome of ``operation`` after it is durable; raises as ``enqueue``'s future.

        A caller that is cancelled leaves the operation in the queue: it may still
        be committed.
        """
        return await (await self.enqueue(operation))

    async def run(self) -> None:
        """Commit until cancelled or closed."""
        while True:
            batch = [await self._queue.get()]
            while len(batch) < MAX_OPERATIONS and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            begun = perf_counter()  # the loop's own clock may tell milliseconds only
            await self._commit(batch)
            self._observe(len(batch), perf_counter() - begun)
            for _ in batch:
                self._queue.task_done()

    async def close(self) -> None:
        """Refuse new operations and wait until those queued are committed."""
        self._closed = True
        await self._queue.join()

    async def _commit(self, batch: list[_Pending[Any]]) -> None:
        try:
            try:
                outcomes = await self._database.transact(partial(self._together, batch))
            except _GroupFailedError:
                outcomes = await self._database.transact(partial(self._isolated, batch))
            failpoints.hit("writer.after_commit")
        except Exception as error:  # noqa: BLE001 - the loop must outlive any failed transaction
            if not isinstance(error, ServiceError):
                _log.error("group commit failed", operations=len(batch), error=type(error).__name__)
                error = Unavailable("UNAVAILABLE", "the transaction could not be committed")
            outcomes = [error] * len(batch)
        for pending, outcome in zip(batch, outcomes, strict=True):
            _settle(pending.done, outcome)

    async def _together(self, batch: list[_Pending[Any]], work: UnitOfWork) -> list[Any]:
        try:
            return await self._in_waves(batch, work, self._applied)
        except Exception as error:
            if isinstance(error, DBAPIError) and self._database.is_transient(error):
                raise
            raise _GroupFailedError from error

    async def _isolated(self, batch: list[_Pending[Any]], work: UnitOfWork) -> list[Any]:
        return await self._in_waves(batch, work, self._apply)

    async def _in_waves(self, batch: list[_Pending[Any]], work: UnitOfWork, apply: _Apply) -> list[Any]:
        outcomes: list[Any] = [None] * len(batch)
        for kind, places in _waves(batch):
            operations = [batch[place].operation for place in places]
            for place, outcome in zip(places, await apply(work, kind, operations), strict=True):
                outcomes[place] = outcome
        failpoints.hit("writer.before_commit")
        return outcomes

    async def _applied(self, work: UnitOfWork, kind: type, operations: list[Any]) -> Sequence[Any]:
        outcomes = await self._appliers[kind](work, operations)
        if len(outcomes) != len(operations):
            raise RuntimeError(f"{len(outcomes)} outcomes for {len(operations)} operations")
        return outcomes

    async def _apply(
        self, work: UnitOfWork, kind: type, operations: list[Any], *, again: bool = False
    ) -> Sequence[Any]:
        try:
            async with work.savepoint():
                return await self._applied(work, kind, operations)
        except TransactionLostError as lost:
            cause = lost.__cause__
            raise (
                self._database.refusal(cause) if isinstance(cause, DBAPIError) else None
            ) or lost from cause
        except Exception as error:
            if isinstance(error, DBAPIError) and self._database.refusal(error):
                raise
            if len(operations) == 1:
                if not again and isinstance(error, DBAPIError) and self._database.collided(error):
                    # The same call, say, through another process: now its applier finds what that wrote.
                    return await self._apply(work, kind, operations, again=True)
                if not isinstance(error, ServiceError):
                    _log.exception("an operation failed", operation=kind.__name__, **_ids(operations[0]))
                return [error]
        return [(await self._apply(work, kind, [operation]))[0] for operation in operations]


def _waves(batch: Sequence[_Pending[Any]]) -> list[tuple[type, list[int]]]:
    seen: Tally[str] = Tally()
    groups: dict[tuple[int, type], list[int]] = {}
    for place, pending in enumerate(batch):
        key = pending.operation.key
        groups.setdefault((seen[key], type(pending.operation)), []).append(place)
        seen[key] += 1
    return [(kind, places) for (_, kind), places in sorted(groups.items(), key=lambda group: group[0][0])]


def _ids(operation: object) -> dict[str, str]:
    """Return the ids of what an operation is about: lines of the writer have no call to take them from."""
    found = {name: getattr(operation, f"{name}_id", None) for name in ("agent", "task", "attempt")}
    return {name: value for name, value in found.items() if value is not None}


def _settle(done: asyncio.Future[Any], outcome: object) -> None:
    if done.done():
        return
    if isinstance(outcome, Exception):
        done.set_exception(outcome)
    else:
        done.set_result(outcome)
