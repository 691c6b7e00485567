"""Watching agents: what matched at the beginning, then every change, in the order of commits.

A place in a watch is (revision, agent id, beginning): the last row that was sent, and
the revision at which the watch began, or 0 once all that existed then was sent. Resume
tokens carry it, so that a watch goes on in the middle of its beginning too.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from controlplane.agents.operations import TOPIC
from controlplane.agents.records import AgentChange, ChangeType, WatchedAgent
from controlplane.agents.store import reading
from controlplane.filtering import PageToken, PageTokenError, digest_of_request
from controlplane.storage.database import Database
from controlplane.storage.watching import Cursor, follow
from controlplane.wakeups import WakeUps

_KIND = "agents.watch"

# Above every agent id, none of which has this character.
_LAST_ID = "~"


class AgentWatch:
    """One watch over the agents that match a filter."""

    def __init__(self, database: Database, wakeups: WakeUps, secret: bytes, text: str) -> None:
        self._database = database
        self._wakeups = wakeups
        self._secret = secret
        self._text = text
        self._request = digest_of_request({"filter": text})
        self._place: Cursor = (0, "")
        self._began = 0
        # Told as removed, or skipped as such: said once, however often such an agent changes.
        self._gone: set[str] = set()

    async def changes(self, resume_token: str) -> AsyncGenerator[AgentChange, None]:
        """Yield changes for ever, from the place of ``resume_token`` or from the beginning.

        Raises ``PageTokenError`` and ``FilterError`` before the first one.
        """
        if resume_token:
            self._resume(resume_token)
        else:
            async with self._database.reading() as connection:
                # At least 1, for 0 says that the beginning is over.
                self._began = max(1, await reading.last_revision(connection))
        rows = follow(self._wakeups, TOPIC, self._place, self._read, lambda row: (row.revision, row.agent_id))
        async with aclosing(rows):
            async for row in rows:
                change = self._synced() if row is None else self._changed(row)
                if change is not None:
                    yield change

    async def _read(self, after: Cursor, limit: int) -> Sequence[WatchedAgent]:
        async with self._database.reading() as connection:
            return await reading.watched(connection, self._text, after, self._began, limit)

    def _changed(self, row: WatchedAgent) -> AgentChange | None:
        self._place = (row.revision, row.agent_id)
        if row.agent is not None:
            self._gone.discard(row.agent_id)
            existing = row.revision <= self._began
            change = ChangeType.EXISTING if existing else ChangeType.CHANGED
            return AgentChange(change, row.agent_id, row.agent, self._token())
        if row.agent_id in self._gone:
            return None
        self._gone.add(row.agent_id)
        return AgentChange(ChangeType.REMOVED, row.agent_id, None, self._token())

    def _synced(self) -> AgentChange | None:
        if not self._began:
            return None
        self._place = max(self._place, (self._began, _LAST_ID))
        self._began = 0
        return AgentChange(ChangeType.SYNCED, "", None, self._token())

    def _token(self) -> str:
        return PageToken(_KIND, self._request, (*self._place, self._began)).encode(self._secret)

    def _resume(self, text: str) -> None:
        token = PageToken.decode(
            text, kind=_KIND, request=self._request, secret=self._secret, field="resume_token"
        )
        match token.key:
            case (int(revision), str(agent_id), int(began)):
                self._place, self._began = (revision, agent_id), began
            case _:
                raise PageTokenError(
                    "was made by another version of the server: begin anew", field="resume_token"
                )
