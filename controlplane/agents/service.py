"""The room's door: who exists, for other rooms and for administrators."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta

import structlog

from controlplane.agents import rules
from controlplane.agents.operations import TOPIC
from controlplane.agents.records import (
    AgentChange,
    AgentPage,
    AgentRecord,
    Health,
    HostRecord,
    LiveSession,
    Registration,
    SessionFacts,
)
from controlplane.agents.rules import Editable, HealthLimits, Presence, PresenceReason, Transition
from controlplane.agents.store import presence, reading, registry, selecting
from controlplane.agents.store.reading import Connection
from controlplane.agents.store.selecting import Holders, Selector, SessionStates
from controlplane.callers import Caller
from controlplane.clock import Clock, to_micros
from controlplane.errors import Aborted, AlreadyExists, NotFound, invalid
from controlplane.filtering import PageToken, digest_of_request
from controlplane.filtering.page_bytes import fitting
from controlplane.storage.database import Database, Look
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.storage.watching import Change, Cursor, Seen, watch
from controlplane.wakeups import WakeUps

__all__ = [
    "AgentRecord",
    "AgentsService",
    "HealthLimits",
    "HostRecord",
    "Presence",
    "PresenceReason",
    "Registration",
    "Selector",
    "SessionFacts",
    "Transition",
]

DEFAULT_PAGE = 100
MAX_PAGE = 1_000

OnDelete = Callable[[UnitOfWork, str, datetime], Awaitable[int]]
"""Takes part in the transaction that deletes an agent; returns how many tasks it cancelled."""

_PAGES = "agents"
_WATCH = "agents.watch"
_AGENT_OVERHEAD = 1_024  # bytes of an agent's other fields, most of them short
_MICROSECOND = timedelta(microseconds=1)
_PROCESS_GONE = "the server process that held its session is gone; the agent has not come back yet"

_log = structlog.get_logger(__name__)


class AgentsService:
    """Use cases around agents.

    ``on_delete`` hooks run inside the transaction that deletes an agent; they are wired by
    ``bootstrap``. What must follow its commit they put after it.
    ``page_secret`` signs page and resume tokens.
    """

    def __init__(
        self,
        database: Database,
        wakeups: WakeUps,
        clock: Clock,
        limits: HealthLimits,
        page_secret: bytes,
    ) -> None:
        self._database = database
        self._wakeups = wakeups
        self._clock = clock
        self._limits = limits
        self._secret = page_secret
        self.on_delete: list[OnDelete] = []

    @property
    def limits(self) -> HealthLimits:
        """After which silence an agent is STALE and OFFLINE, where the interval did not grow."""
        return self._limits

    async def register(
        self, work: UnitOfWork, registration: Registration, *, replace: bool, now: datetime
    ) -> bool:
        """Enrol an agent in the caller's transaction; returns whether it is new.

        One that is enrolled keeps its labels and notes; the registration's labels are added
        and win. A deleted one begins anew, except that its session epoch goes on. Raises
        ``AlreadyExists`` AGENT_ALREADY_ENROLLED where it is enrolled and ``replace`` is
        false, and ``InvalidArgument`` where the labels together break a limit.
        """
        agent_id, host, micros = registration.agent_id, registration.host, to_micros(now)
        entry = await registry.entry(work.connection, agent_id)
        enrolled = entry is not None and not entry.deleted
        if enrolled and not replace:
            raise AlreadyExists(
                "AGENT_ALREADY_ENROLLED",
                f"agent_id: {agent_id!r} is enrolled; take another id, or a token that may replace agents",
            )
        labels = {**(entry.editable.labels if entry and enrolled else {}), **registration.labels}
        try:
            rules.check_labels(labels)
        except rules.LabelsInvalid as error:
            raise invalid("labels", str(error)) from None
        write = registry.enrol if entry is None else registry.replace if enrolled else registry.revive
        await write(work, agent_id, labels, host, micros)
        self._notify_after(work)
        return not enrolled

    async def require(self, connection: Connection | None, agent_id: str, *, field: str) -> None:
        """Raise ``NotFound`` AGENT_UNKNOWN unless an agent is enrolled.

        ``connection`` is the caller's transaction; None reads by itself. ``field`` of the
        request names the agent.
        """
        if not await self.existing_ids(connection, [agent_id]):
            raise _unknown(agent_id, field)

    async def presences(
        self, connection: Connection, agent_ids: Collection[str], *, field: str, lock: bool = False
    ) -> Mapping[str, Presence | NotFound]:
        """Return the presence of each of ``agent_ids``; of those not enrolled, what ``require`` raises.

        With ``lock``, of two transactions about the same agent the second one waits for the first.
        """
        known = await reading.presences(connection, agent_ids, lock=lock)
        return {agent_id: known.get(agent_id) or _unknown(agent_id, field) for agent_id in agent_ids}

    async def existing_ids(self, connection: Connection | None, agent_ids: Iterable[str]) -> frozenset[str]:
        """Return those of at most 10,000 ``agent_ids`` that are enrolled."""
        if connection is not None:
            return frozenset(await reading.presences(connection, agent_ids))
        async with self._database.reading() as own:
            return frozenset(await reading.presences(own, agent_ids))

    def selector(
        self, filter_text: str, *, percentage: int = 100, seed: int = 0, field: str = "selector"
    ) -> Selector:
        """Return all agents that match a filter, ``*`` for all, as a part of another room's statement.

        Of ``percentage`` of them, 1 to 100: always the same ones for one ``seed``. Raises
        ``InvalidArgument`` FILTER_INVALID with the position, and the request's ``field``.
        """
        return selecting.selector(filter_text, percentage=percentage, seed=seed, field=field)

    def living(self) -> SessionStates:
        """Return (agent_id, online, offline) of every living agent, for another room's statement.

        ``online`` is ONLINE, ``offline`` OFFLINE; one that is STALE is neither.
        """
        return selecting.living()

    async def session_epochs(self, connection: Connection, agent_ids: Iterable[str]) -> Mapping[str, int]:
        """Return the epoch of the newest session of each of ``agent_ids``; it stays so till the commit."""
        return await presence.session_epochs(connection, agent_ids)

    def session_states(self) -> SessionStates:
        """Return (agent_id, session_epoch, online) of every agent, as a part of another room's statement."""
        return selecting.session_states()

    async def get(self, agent_id: str) -> AgentRecord:
        """Return an agent. Raises ``NotFound`` AGENT_UNKNOWN."""
        async with self._database.reading() as connection:
            return await self._get(connection, agent_id)

    async def list(self, *, page_size: int, page_token: str, filter_text: str) -> AgentPage:
        """Return a page of the agents that match a filter, ordered by id.

        ``page_size`` 0 is the default; a page of large agents may have fewer. Raises
        ``InvalidArgument`` FILTER_INVALID and PAGE_TOKEN_INVALID.
        """
        size = min(page_size, MAX_PAGE) or DEFAULT_PAGE
        request = digest_of_request({"filter": filter_text})
        after = ""
        if page_token:
            token = PageToken.decode(page_token, kind=_PAGES, request=request, secret=self._secret)
            after = str(token.key[0])
        async with self._database.reading() as connection:
            total = 0 if page_token else await reading.total(connection, filter_text)
            found = await reading.page(connection, filter_text, after, size + 1)
        agents = fitting(found[:size], _size)
        more = len(agents) < len(found)
        following = PageToken(_PAGES, request, (agents[-1].agent_id,)).encode(self._secret) if more else ""
        return AgentPage(agents, following, total)

    async def update(
        self, agent_id: str, *, paths: Sequence[str], sent: Editable, etag: str, caller: Caller
    ) -> AgentRecord:
        """Change the fields of an agent that the mask ``paths`` names; returns it as it is then.

        An empty ``etag`` fits any version. Raises ``NotFound``, ``Aborted`` ETAG_MISMATCH,
        and ``InvalidArgument`` FIELD_MASK_INVALID or VALIDATION_FAILED.
        """
        now = to_micros(self._clock.now())
        async with self._database.unit_of_work() as work:
            entry = await self._entry(work, agent_id, etag, of="agent.")
            edited = _edited(entry.editable, paths, sent)
            cleared = entry.editable.suspected_clone and not edited.suspected_clone
            groups = entry.editable.groups
            await registry.write_editable(work, agent_id, edited, groups, now, cleared=cleared)
            self._notify_after(work)
            record = await self._get(work.connection, agent_id)
        _log.info("agent updated", agent=agent_id, fields=sorted(paths), by=caller.spiffe_id)
        return record

    async def delete(self, agent_id: str, *, etag: str, caller: Caller) -> int:
        """Delete an agent and all that hangs on it; returns how many tasks were cancelled.

        Raises ``NotFound`` AGENT_UNKNOWN and ``Aborted`` ETAG_MISMATCH.
        """
        now = self._clock.now()
        async with self._database.unit_of_work() as work:
            await self._entry(work, agent_id, etag, of="")
            cancelled = 0
            for hook in self.on_delete:
                cancelled += await hook(work, agent_id, now)
            await registry.bury(work, agent_id, f"deleted by {caller.spiffe_id}", to_micros(now))
            self._notify_after(work)
        _log.info("agent deleted", agent=agent_id, cancelled_tasks=cancelled, by=caller.spiffe_id)
        return cancelled

    async def watch(self, *, filter_text: str, resume_token: str) -> AsyncGenerator[AgentChange, None]:
        """Yield the agents that match a filter, then SYNCED, then changes in the order of commits.

        With a ``resume_token``, yields only what changed after it. Ends when the consumer
        closes it. Raises ``InvalidArgument`` FILTER_INVALID and PAGE_TOKEN_INVALID at the
        first step.
        """
        request = digest_of_request({"filter": filter_text})
        resume = self._cursor(resume_token, request) if resume_token else None

        async def read(after: Cursor, limit: int) -> Look[Seen[AgentRecord | None]]:
            return await self._database.look(
                lambda connection: reading.watched(connection, filter_text, after, limit),
                lambda seen: seen.revision,
            )

        async with aclosing(watch(self._wakeups, TOPIC, resume, read)) as changes:
            async for change, agent, cursor in changes:
                token = PageToken(_WATCH, request, cursor).encode(self._secret)
                agent_id = "" if change is Change.SYNCED else cursor[1]
                yield AgentChange(change, agent_id, agent, token)

    def _cursor(self, text: str, request: bytes) -> Cursor:
        token = PageToken.decode(
            text, kind=_WATCH, request=request, secret=self._secret, field="resume_token"
        )
        revision, agent_id = token.key
        return int(revision), str(agent_id)

    async def record_beats(self, last_seen: Mapping[str, int]) -> None:
        """Move the last-seen times of many agents forward, in microseconds; watchers are not told."""
        if last_seen:
            await self._database.transact(lambda work: presence.write_beats(work.connection, last_seen))

    async def health_sweep(
        self,
        now: datetime,
        gateway_id: str,
        live: Mapping[str, LiveSession],
        limits: HealthLimits | None = None,
    ) -> Health:
        """Move agents of the process ``gateway_id`` between ONLINE, STALE and OFFLINE by their silence.

        ``live`` has the sessions of that process; ``limits`` stands for those of the settings
        where the interval grew with the fleet. A session that lives here and was taken for
        gone by others is claimed; one that has a successor is named, for its end.
        """
        limits, micros = limits or self._limits, to_micros(now)
        oldest = micros - limits.stale_after // _MICROSECOND
        late = {agent_id for agent_id, session in live.items() if session.beat < oldest}
        async with self._database.reading() as connection:
            online = await presence.online(connection, gateway_id)
            # Only who may change is read in full: in a healthy fleet, no one. One look at each agent, for
            # nothing else runs meanwhile.
            unlike = {agent_id for agent_id, session in live.items() if online.get(agent_id) != session.epoch}
            doubtful = late | unlike | (online.keys() - live.keys())
            beats = {agent_id: live[agent_id].beat for agent_id in live.keys() & doubtful}
            sightings = await presence.sightings(connection, gateway_id, beats, doubtful)
        outlived = {
            seen.agent_id: seen.epoch
            for seen in sightings
            if seen.agent_id in live and seen.epoch > live[seen.agent_id].epoch
        }
        judged = (rules.judge(seen, micros, limits) for seen in sightings if seen.agent_id not in outlived)
        moved = [transition for transition in judged if transition]
        return Health(await self._move(moved, micros, gateway_id), outlived)

    async def close_sessions(self, work: UnitOfWork, holders: Holders, now: datetime) -> int:
        """Mark as STALE who is ONLINE at a process that is none of ``holders``; returns how many.

        ``holders`` are the ids of the processes that live, as a part of a statement.
        """
        closed = await presence.close_sessions(work, holders, _PROCESS_GONE, to_micros(now))
        if closed:
            self._notify_after(work)
        return closed

    async def judge_absent(self, holders: Holders, now: datetime) -> Sequence[Transition]:
        """Move STALE agents that no living process holds to OFFLINE, by their silence; returns those."""
        micros = to_micros(now)
        async with self._database.reading() as connection:
            sightings = await presence.absent(connection, holders)
        judged = (rules.judge(sighting, micros, self._limits) for sighting in sightings)
        return await self._move([transition for transition in judged if transition], micros)

    async def counts(self) -> Mapping[Presence, int]:
        """Return how many agents have each presence."""
        async with self._database.reading() as connection:
            return await reading.counts(connection)

    async def _move(
        self, transitions: Sequence[Transition], now: int, gateway_id: str | None = None
    ) -> Sequence[Transition]:
        if transitions:
            async with self._database.unit_of_work() as work:
                changes = [(transition, now) for transition in transitions]
                await presence.write_transitions(work, changes, gateway_id)
                self._notify_after(work)
        return transitions

    async def _get(self, connection: Connection, agent_id: str) -> AgentRecord:
        record = await reading.find(connection, agent_id)
        if record is None:
            raise _unknown(agent_id, "name")
        return record

    async def _entry(self, work: UnitOfWork, agent_id: str, etag: str, of: str) -> registry.Entry:
        entry = await registry.entry(work.connection, agent_id)
        if entry is None or entry.deleted:
            raise _unknown(agent_id, f"{of}name")
        if etag and etag != entry.etag:
            raise Aborted(
                "ETAG_MISMATCH",
                f"{of}etag: the agent has changed since: read agents/{agent_id} again, then decide",
            )
        return entry

    def _notify_after(self, work: UnitOfWork) -> None:
        work.after_commit(lambda: self._wakeups.notify(TOPIC))


def _unknown(agent_id: str, field: str) -> NotFound:
    remedy = "list the agents to see which there are, or enrol it"
    return NotFound("AGENT_UNKNOWN", f"{field}: there is no agents/{agent_id}; {remedy}")


def _size(agent: AgentRecord) -> int:
    # Values of labels and notes may have up to four bytes a character.
    labels = sum(len(key) + len(value.encode()) + 8 for key, value in agent.labels.items())
    names = labels + sum(len(name) for name in agent.groups)
    return _AGENT_OVERHEAD + names + len(agent.notes.encode()) + 16 * len(agent.task_kinds)


def _edited(present: Editable, paths: Sequence[str], sent: Editable) -> Editable:
    try:
        edited = rules.edit(paths, present, sent)
    except rules.FieldMaskInvalid as error:
        raise invalid("update_mask", str(error), reason="FIELD_MASK_INVALID") from None
    except rules.LabelsInvalid as error:
        raise invalid("agent.labels", str(error)) from None
    except rules.GroupsInvalid as error:
        raise invalid("agent.groups", str(error)) from None
    size = len(edited.notes.encode())
    if size > rules.MAX_NOTES_BYTES:
        raise invalid("agent.notes", f"{size} bytes; at most {rules.MAX_NOTES_BYTES}")
    return edited
