"""Calls that carry a ``request_id``: the same one twice gives the first answer, another one is refused."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta

from controlplane.errors import invalid
from controlplane.packaging.store import requests as stored
from controlplane.storage.unit_of_work import UnitOfWork

REQUEST_MEMORY = timedelta(hours=48)
"""How long a request_id is remembered; the contract promises 24 h."""


def refuse_nul(**fields: str) -> None:
    """Raise ``InvalidArgument`` for a text that no database keeps, by the name of its field."""
    for name, text in fields.items():
        if "\0" in text:
            raise invalid(name, "has a NUL character; take it out")


@dataclass(frozen=True, slots=True)
class Request:
    """A call that makes something; an empty ``request_id`` makes something new each time."""

    creator: str
    request_id: str
    digest: bytes

    @classmethod
    def of(cls, creator: str, request_id: str, *content: object) -> Request:
        """Return the request for ``content``, whose ``repr`` says all of it. Raises ``InvalidArgument``."""
        refuse_nul(request_id=request_id)
        return cls(creator, request_id, hashlib.sha256(repr(content).encode()).digest())

    async def made(self, work: UnitOfWork) -> str | None:
        """Return the id of what it made before, or None.

        Raises ``InvalidArgument`` REQUEST_ID_REUSED where the same request_id asked for something else.
        """
        if not self.request_id:
            return None
        found = await stored.find(work, self.creator, self.request_id)
        if found is None:
            return None
        digest, created_id = found
        if digest != self.digest:
            raise invalid(
                "request_id",
                f"{self.request_id!r} was used for another content; use a new one for each request",
                reason="REQUEST_ID_REUSED",
            )
        return created_id

    async def has_made(self, work: UnitOfWork, created_id: str, now: int) -> None:
        """Remember what it made."""
        if self.request_id:
            await stored.add(work, self.creator, self.request_id, self.digest, created_id, now)

    async def is_void(self, work: UnitOfWork) -> None:
        """Forget what it made, which is gone."""
        if self.request_id:
            await stored.forget(work, self.creator, self.request_id)
