"""Reading the same thing of many, many at once.

Every stream that opens asks the database something small, and a fleet that comes
back asks thousands of times a second. While one statement reads, the questions of
the next one gather: an idle server answers at once, a busy one pays for a
statement once for many. Nothing is remembered, so an answer is never older than
its question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from itertools import islice
from typing import Any, Generic, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.storage.database import Database

MAX_KEYS = 1_000
"""Questions in one statement: above this its cost is no longer the round trip to the database."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class GatheredReads(Generic[K, V]):
    """Answers questions by key. ``read`` gets at most ``MAX_KEYS`` keys and returns what it found."""

    def __init__(
        self,
        database: Database,
        read: Callable[[AsyncConnection, Sequence[K]], Coroutine[Any, Any, Mapping[K, V]]],
    ) -> None:
        self._database = database
        self._read_many = read
        self._asked: dict[K, asyncio.Future[V | None]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def find(self, key: K) -> V | None:
        """Return the answer as committed, None where there is nothing of ``key``."""
        answer = self._asked.get(key)
        if answer is None:
            answer = self._asked[key] = asyncio.get_running_loop().create_future()
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
        # Who stops waiting must not take the answer away from others who asked the same.
        return await asyncio.shield(answer)

    async def _read(self) -> None:
        try:
            while self._asked:
                keys = list(islice(self._asked, MAX_KEYS))
                await self._answer({key: self._asked.pop(key) for key in keys})
        finally:
            self._reading = None

    async def _answer(self, answers: Mapping[K, asyncio.Future[V | None]]) -> None:
        try:
            found = await self._database.read(lambda connection: self._read_many(connection, list(answers)))
        except Exception as error:  # noqa: BLE001 # it belongs to those who asked; others go on asking
            for answer in answers.values():
                answer.set_exception(error)
                answer.exception()  # its askers may all be gone, and that is no news
            return
        for key, answer in answers.items():
            answer.set_result(found.get(key))
