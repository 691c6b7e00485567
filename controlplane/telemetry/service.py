"""The room's door: what agents measured, for streams and for administrators."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import datetime

from controlplane.agents.service import AgentsService
from controlplane.clock import to_micros
from controlplane.errors import invalid
from controlplane.filtering import PageToken, digest_of_request
from controlplane.filtering.page_bytes import fitting
from controlplane.storage.backends import POSTGRESQL
from controlplane.storage.database import Database
from controlplane.storage.gathered_reads import GatheredReads
from controlplane.storage.slices import Slice, delete_in_slices
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.storage.watching import BEHIND, POLL
from controlplane.telemetry import rules
from controlplane.telemetry.operations import TOPIC
from controlplane.telemetry.records import Choice, Place, PointPage, PointsCommitted, Standing, StoredPoint
from controlplane.telemetry.store import cursors, partitions
from controlplane.telemetry.store import points as stored
from controlplane.wakeups import WakeUps

DEFAULT_PAGE = 1_000
MAX_PAGE = 10_000

MAX_WATCHED = 1_000
"""Points in one message of a watch; the contract's limit."""

PRUNE_STEP = 5_000
"""Points deleted in one transaction: it holds back what agents write for some ten milliseconds."""

_PAGES = "telemetry"
_WATCH = "telemetry.watch"
_POINT_OVERHEAD = 64  # bytes of a point's times, value and framing


class TelemetryService:
    """Use cases around points. ``page_secret`` signs page and resume tokens."""

    def __init__(
        self, database: Database, wakeups: WakeUps, agents: AgentsService, page_secret: bytes
    ) -> None:
        self._database = database
        self._wakeups = wakeups
        self._agents = agents
        self._secret = page_secret
        self._cursors = GatheredReads(database, cursors.cursors_of)

    async def standing(self, agent_id: str, journal_id: str, epoch: int) -> Standing:
        """Return where a journal stands, and where it stood after the session of ``epoch``; 0: none."""
        cursor = await self._cursors.find((agent_id, journal_id)) or cursors.NO_CURSOR
        last = cursor.last_sequence
        return Standing(last, rules.stored_until(cursor.stretches, epoch, last) if epoch else None)

    async def query(self, choice: Choice, *, page_size: int, page_token: str) -> PointPage:
        """Return a page of the chosen points by time of measurement, oldest first.

        ``page_size`` 0 is the default; a page of large points may have fewer. Points of a
        deleted agent are found as long as they are kept. Raises ``NotFound`` AGENT_UNKNOWN
        for an agent that has no points and is not enrolled, and ``InvalidArgument``
        VALIDATION_FAILED and PAGE_TOKEN_INVALID.
        """
        if choice.start is not None and choice.end is not None and choice.end < choice.start:
            raise invalid("end_time", "lies before start_time; send a later one, or none")
        request = _request(choice)
        after = self._after(page_token, request) if page_token else None
        size = min(page_size, MAX_PAGE) or DEFAULT_PAGE
        async with self._database.reading() as connection:
            found = await stored.page(connection, choice, after, size + 1)
        if not found and choice.agent_id:
            await self._agents.require(None, choice.agent_id, field="agent")
        points = fitting(found[:size], _size)
        token = ""
        if len(points) < len(found):
            last = points[-1]
            token = PageToken(_PAGES, request, (last.point.time, last.point_id)).encode(self._secret)
        return PointPage(points, token)

    async def watch(self, choice: Choice, *, resume_token: str) -> AsyncGenerator[PointsCommitted, None]:
        """Yield where the watch begins, then the chosen points as they are committed, for ever.

        ``choice`` may not restrict times. With a ``resume_token``, begins after it. Raises
        ``NotFound`` AGENT_UNKNOWN and ``InvalidArgument`` PAGE_TOKEN_INVALID at the first step.
        """
        request = _request(choice)
        if choice.agent_id:
            await self._agents.require(None, choice.agent_id, field="agent")
        if resume_token:
            cursor = self._watched(resume_token, request)
        else:
            cursor, _ = await self._database.read(stored.committed_up_to)
        yield self._committed([], cursor, request)
        with self._wakeups.listening(TOPIC) as listener:
            while True:
                up_to, behind = await self._database.read(stored.committed_up_to)
                while cursor < up_to:
                    points, cursor = await self._read(choice, cursor, up_to)
                    if points:
                        yield self._committed(points, cursor, request)
                await listener.wait(BEHIND if behind else POLL)

    async def prune(self, before: datetime) -> int:
        """Delete points received before ``before``, in bounded transactions; returns how many.

        On PostgreSQL whole days go at once, with the partition that holds them, and their number is the
        server's estimate. With the points go the cursors of journals that were replaced and last written
        before.
        """
        if self._database.dialect == POSTGRESQL:
            pruned = await self._drop(before)
        else:
            pruned = await self._prune(stored.prune, before)
        await self._prune(cursors.prune_cursors, before)
        return pruned

    async def _drop(self, before: datetime) -> int:
        days = await self._database.read(lambda connection: partitions.over(connection, to_micros(before)))
        dropped = 0
        for day in days:
            async with self._database.unit_of_work() as work:
                dropped += await partitions.drop(work, day)
        return dropped

    async def _prune(self, prune: Callable[[UnitOfWork, int, int], Awaitable[int]], before: datetime) -> int:
        async def step(work: UnitOfWork) -> Slice:
            deleted = await prune(work, to_micros(before), PRUNE_STEP)
            return Slice(deleted, more=deleted == PRUNE_STEP)

        return await delete_in_slices(self._database, step)

    async def _read(self, choice: Choice, after: Place, up_to: Place) -> tuple[list[StoredPoint], Place]:
        async with self._database.reading() as connection:
            found = await stored.committed(connection, choice, after, up_to, MAX_WATCHED)
        points = list(fitting(found, _size))
        seen_all = len(found) < MAX_WATCHED and len(points) == len(found)
        return points, up_to if seen_all else points[-1].place

    def _committed(self, points: list[StoredPoint], cursor: Place, request: bytes) -> PointsCommitted:
        return PointsCommitted(points, PageToken(_WATCH, request, cursor).encode(self._secret))

    def _after(self, text: str, request: bytes) -> tuple[int, int]:
        time, point_id = PageToken.decode(text, kind=_PAGES, request=request, secret=self._secret).key
        return int(time), int(point_id)

    def _watched(self, text: str, request: bytes) -> Place:
        token = PageToken.decode(
            text, kind=_WATCH, request=request, secret=self._secret, field="resume_token"
        )
        # One of before there were revisions has the number of a point alone.
        return (int(token.key[0]), int(token.key[1])) if len(token.key) == 2 else (0, int(token.key[0]))


def _request(choice: Choice) -> bytes:
    return digest_of_request(
        {
            "agent": choice.agent_id,
            "metric": choice.metric,
            "start": "" if choice.start is None else choice.start,
            "end": "" if choice.end is None else choice.end,
        }
    )


def _size(stored: StoredPoint) -> int:
    # Attributes may have up to four bytes a character; the others are ASCII.
    point = stored.point
    return _POINT_OVERHEAD + len(stored.agent_id) + len(point.metric) + len(point.attributes.encode())
