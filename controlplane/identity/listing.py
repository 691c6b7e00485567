"""Pages of what administrators list of this room: newest first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from controlplane.filtering import PageToken, digest_of_request
from controlplane.identity.store.tokens import Connection, Position
from controlplane.storage.database import Database

DEFAULT_PAGE = 100
MAX_PAGE = 1_000

_REQUEST = digest_of_request({})

Record = TypeVar("Record")


class NewestFirst(Generic[Record]):
    """A listing without a filter.

    ``kind`` names it in page tokens, which ``secret`` signs. ``read(connection, before, limit)``
    returns what comes after the position ``before``, and ``position`` is that of a record.
    """

    def __init__(
        self,
        database: Database,
        kind: str,
        secret: bytes,
        read: Callable[[Connection, Position | None, int], Awaitable[list[Record]]],
        position: Callable[[Record], Position],
    ) -> None:
        self._database = database
        self._kind = kind
        self._secret = secret
        self._read = read
        self._position = position

    async def page(self, page_size: int, page_token: str) -> tuple[list[Record], str]:
        """Return a page and the token of the next one, empty after the last; ``page_size`` 0 is the default.

        Raises ``InvalidArgument`` PAGE_TOKEN_INVALID.
        """
        size = min(page_size, MAX_PAGE) or DEFAULT_PAGE
        before = None
        if page_token:
            place = PageToken.decode(page_token, kind=self._kind, request=_REQUEST, secret=self._secret)
            before = int(place.key[0]), str(place.key[1])
        async with self._database.reading() as connection:
            found = await self._read(connection, before, size + 1)
        listed, following = found[:size], ""
        if len(found) > size:
            place = PageToken(self._kind, _REQUEST, self._position(listed[-1]))
            following = place.encode(self._secret)
        return listed, following
