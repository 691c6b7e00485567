"""Questions to the ledger, and how long it is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from controlplane.agents.service import AgentsService
from controlplane.clock import to_micros
from controlplane.errors import NotFound, invalid
from controlplane.filtering import PageToken, digest_of_request, read
from controlplane.storage.database import Database
from controlplane.storage.slices import Slice, delete_in_slices
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.tasks.ledger.events import Choice, EventRecord
from controlplane.tasks.store import ledger as store
from controlplane.tasks.store import reading

DEFAULT_PAGE = 100
MAX_PAGE = 1_000

PRUNE_STEP = 5_000
"""Events deleted in one transaction: it holds back what agents write for some ten milliseconds."""

_PAGES = "delivery.events"


@dataclass(frozen=True, slots=True)
class EventPage:
    """A page of events; ``lost`` observations are counted for the first page, and 0 on later ones."""

    events: Sequence[EventRecord]
    next_page_token: str
    lost: int


class LedgerService:
    """Use cases around the ledger. ``page_secret`` signs page tokens."""

    def __init__(self, database: Database, agents: AgentsService, page_secret: bytes) -> None:
        self._database = database
        self._agents = agents
        self._secret = page_secret

    async def list(self, choice: Choice, filter_text: str, page_size: int, page_token: str) -> EventPage:
        """Return a page of the chosen events, oldest first; ``page_size`` 0 is the default.

        Events of what is deleted are found as long as they are kept. Raises ``NotFound`` TASK_UNKNOWN and
        AGENT_UNKNOWN for what has no events and is not there, and ``InvalidArgument`` VALIDATION_FAILED,
        FILTER_INVALID and PAGE_TOKEN_INVALID.
        """
        if choice.start is not None and choice.end is not None and choice.end < choice.start:
            raise invalid("end_time", "lies before start_time; send a later one, or none")
        filtered = read(filter_text, store.FILTER)
        request = _request(choice, filter_text)
        after = self._after(page_token, request) if page_token else None
        size = min(page_size, MAX_PAGE) or DEFAULT_PAGE
        async with self._database.reading() as connection:
            found = await store.page(connection, choice, filtered, after, size + 1)
            lost = 0 if page_token else await store.lost(connection, choice)
        if not found:
            await self._require(choice)
        events, token = found[:size], ""
        if len(found) > size:
            token = PageToken(_PAGES, request, (events[-1].time, events[-1].event_id)).encode(self._secret)
        return EventPage(events, token, lost)

    async def prune(self, before: datetime) -> int:
        """Delete events from before an instant, in bounded transactions; returns how many."""

        place: tuple[int, int] | None = None

        async def step(work: UnitOfWork) -> Slice:
            nonlocal place
            deleted, place = await store.prune(work, to_micros(before), place, PRUNE_STEP)
            return Slice(deleted, more=place is not None)

        return await delete_in_slices(self._database, step)

    async def _require(self, choice: Choice) -> None:
        task_id = choice.task_id
        if (
            task_id
            and await self._database.read(lambda connection: reading.task(connection, task_id)) is None
        ):
            raise NotFound(
                "TASK_UNKNOWN",
                f"task: there is no tasks/{task_id}, and no event of one is kept; "
                "list tasks to see which there are",
            )
        if choice.agent_id:
            await self._agents.require(None, choice.agent_id, field="agent")

    def _after(self, token: str, request: bytes) -> tuple[int, int]:
        time, event_id = PageToken.decode(token, kind=_PAGES, request=request, secret=self._secret).key
        return int(time), int(event_id)


def _request(choice: Choice, filter_text: str) -> bytes:
    return digest_of_request(
        {
            "task": choice.task_id,
            "agent": choice.agent_id,
            "filter": filter_text,
            "start": "" if choice.start is None else choice.start,
            "end": "" if choice.end is None else choice.end,
        }
    )
