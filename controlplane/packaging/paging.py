"""Pages of this room's lists, newest first, with tokens that only this server makes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from controlplane.filtering import BoundFilter, FilterSchema, PageToken, digest_of_request, read

DEFAULT_PAGE = 100
MAX_PAGE = 1_000

Place = tuple[int, str]
"""Of a row in its list: an instant or another number, and the id."""

Row = TypeVar("Row")
Row_co = TypeVar("Row_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a caller asks of a list."""

    filter_text: str = ""
    page_size: int = 0
    """0 for the default."""
    page_token: str = ""
    parent: str = ""
    """What the list belongs to; a token is good for the same one only."""


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """Rows of a list; ``total`` is 0 on all pages but the first."""

    rows: Sequence[Row]
    next_page_token: str
    total: int


class Listing(Protocol[Row_co]):
    """A list that pages are read of."""

    async def page(self, chosen: BoundFilter, before: Place | None, limit: int) -> Sequence[Row_co]:
        """Return at most ``limit`` rows that match, from behind a place on."""

    async def count(self, chosen: BoundFilter) -> int:
        """Return how many match."""


class Pages:
    """Reads pages; ``secret`` signs their tokens."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    async def of(
        self,
        kind: str,
        schema: FilterSchema,
        listing: Listing[Row],
        place: Callable[[Row], Place],
        asked: Asked,
    ) -> Page[Row]:
        """Return a page of what matches. Raises ``InvalidArgument`` FILTER_INVALID and PAGE_TOKEN_INVALID."""
        chosen = read(asked.filter_text, schema)
        return await self.read(
            kind,
            lambda before, limit: listing.page(chosen, before, limit),
            lambda: listing.count(chosen),
            place,
            asked,
        )

    async def read(
        self,
        kind: str,
        rows_behind: Callable[[Place | None, int], Awaitable[Sequence[Row]]],
        count: Callable[[], Awaitable[int]],
        place: Callable[[Row], Place],
        asked: Asked,
    ) -> Page[Row]:
        """Return a page of a list that knows no filter. Raises ``InvalidArgument`` PAGE_TOKEN_INVALID."""
        request = digest_of_request({"filter": asked.filter_text, "parent": asked.parent})
        before = self.place_of(asked.page_token, kind, request, "page_token")
        size = min(asked.page_size, MAX_PAGE) or DEFAULT_PAGE
        rows = await rows_behind(before, size + 1)
        total = 0 if asked.page_token else await count()
        token = self.token(kind, request, place(rows[size - 1])) if len(rows) > size else ""
        return Page(rows[:size], token, total)

    def token(self, kind: str, request: bytes, place: Place) -> str:
        """Return the token of a place in a list, or in a watch."""
        return PageToken(kind, request, place).encode(self._secret)

    def place_of(self, token: str, kind: str, request: bytes, field: str) -> Place | None:
        """Return the place that a token stands for, None for an empty one. Raises ``InvalidArgument``."""
        if not token:
            return None
        found = PageToken.decode(token, kind=kind, request=request, secret=self._secret, field=field)
        number, ident = found.key
        return int(number), str(ident)
