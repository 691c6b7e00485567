"""Reading where certificates stand, many at once.

Every stream that opens asks, and a fleet that comes back asks thousands of times a
second. While one statement reads, the questions of the next one gather: an idle
server answers at once, a busy one pays for a statement once for many. Nothing is
remembered, so an answer is never older than its question.
"""

from __future__ import annotations

import asyncio
from itertools import islice

from controlplane.identity.rules import Standing
from controlplane.identity.store import certificates
from controlplane.storage.database import Database

MAX_SERIALS = 1_000
"""Questions in one statement: above this its cost is no longer the round trip to the database."""


class Standings:
    """Answers where a certificate stands."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asked: dict[str, asyncio.Future[Standing | None]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def find(self, serial: str) -> Standing | None:
        """Return the standing of a certificate as committed, None where it was never issued here."""
        answer = self._asked.get(serial)
        if answer is None:
            answer = self._asked[serial] = asyncio.get_running_loop().create_future()
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
        # Who stops waiting must not take the answer away from others who asked the same.
        return await asyncio.shield(answer)

    async def _read(self) -> None:
        try:
            while self._asked:
                serials = list(islice(self._asked, MAX_SERIALS))
                answers = {serial: self._asked.pop(serial) for serial in serials}
                await self._answer(answers)
        finally:
            self._reading = None

    async def _answer(self, answers: dict[str, asyncio.Future[Standing | None]]) -> None:
        try:
            async with self._database.reading() as connection:
                found = await certificates.standings(connection, answers.keys())
        except Exception as error:  # noqa: BLE001 - it belongs to those who asked; others go on asking
            for answer in answers.values():
                answer.set_exception(error)
                answer.exception()  # its askers may all be gone, and that is no news
            return
        for serial, answer in answers.items():
            answer.set_result(found.get(serial))
