"""What streams and schedules change: many agents with one statement."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    String,
    and_,
    bindparam,
    case,
    cast,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.agents.records import SessionFacts
from controlplane.agents.rules import Nonces, Presence, PresenceReason, Sighting, Transition
from controlplane.agents.store.selecting import alive
from controlplane.agents.store.tables import agents
from controlplane.storage.prepared import Prepared, each, listed, updating
from controlplane.storage.unit_of_work import UnitOfWork

IDS_AT_ONCE = 10_000
"""Ids in one IN list: SQLite takes 32,766 parameters (SQLITE_MAX_VARIABLE_NUMBER)."""


@dataclass(frozen=True, slots=True)
class SessionState:
    """What the next session of an agent depends on."""

    epoch: int
    gateway_id: str | None
    """The process that holds the session, or held it last."""
    presence: Presence
    presence_time: int
    presence_reason: PresenceReason
    nonces: Nonces
    boot_id: str
    journal_id: str
    suspected_clone: bool


_STATES = Prepared(
    select(
        agents.c.agent_id,
        agents.c.session_epoch,
        agents.c.gateway_id,
        agents.c.presence,
        agents.c.presence_time,
        agents.c.presence_reason,
        agents.c.nonce,
        agents.c.previous_nonce,
        agents.c.boot_id,
        agents.c.journal_id,
        agents.c.suspected_clone,
    )
    .where(agents.c.agent_id.in_(each("agent_ids")), alive())
    .order_by(agents.c.agent_id)
    .with_for_update()
)


async def session_states(connection: AsyncConnection, agent_ids: Sequence[str]) -> Mapping[str, SessionState]:
    """Return the state of each of ``agent_ids`` that is not deleted."""
    return {
        row.agent_id: SessionState(
            epoch=row.session_epoch,
            gateway_id=row.gateway_id,
            presence=Presence(row.presence),
            presence_time=row.presence_time,
            presence_reason=PresenceReason(row.presence_reason),
            nonces=Nonces(row.nonce, row.previous_nonce),
            boot_id=row.boot_id,
            journal_id=row.journal_id,
            suspected_clone=bool(row.suspected_clone),
        )
        for row in await _STATES.rows(connection, {"agent_ids": listed(agent_ids)})
    }


_EPOCHS = Prepared(
    select(agents.c.agent_id, agents.c.session_epoch)
    .where(agents.c.agent_id.in_(each("agent_ids")))
    .order_by(agents.c.agent_id)
    .with_for_update(read=True)
)


async def session_epochs(connection: AsyncConnection, agent_ids: Iterable[str]) -> Mapping[str, int]:
    """Return the epoch of the newest session of each of ``agent_ids``; it stays so till the commit."""
    rows = await _EPOCHS.rows(connection, {"agent_ids": listed(agent_ids)})
    return {row.agent_id: row.session_epoch for row in rows}


_SESSION_COLUMNS = (
    *("presence", "presence_time", "presence_reason", "presence_detail", "last_seen_time", "hostname"),
    *("os_family", "os_name", "os_version", "kernel_version", "architecture", "agent_version"),
    *("task_kinds", "inventory_digest", "clock_offset", "session_epoch", "nonce", "previous_nonce"),
    *("boot_id", "journal_id", "suspected_clone", "certificate_expire_time", "update_time", "revision"),
    "gateway_id",
)
_WRITE_SESSION = updating(agents, "agent_id", _SESSION_COLUMNS)


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session as it is written; ``state`` is the one after its Hello."""

    agent_id: str
    state: SessionState
    facts: SessionFacts
    detail: str
    certificate_expire_time: int
    now: int


async def write_sessions(work: UnitOfWork, sessions: Sequence[NewSession]) -> None:
    """Write new sessions, at most one of each agent."""
    revision = await work.revision()
    rows = []
    for session in sessions:
        state, facts = session.state, session.facts
        row = {
            "agent_id": session.agent_id,
            "presence": state.presence.value,
            "presence_time": state.presence_time,
            "presence_reason": state.presence_reason.value,
            "presence_detail": session.detail,
            "last_seen_time": session.now,
            **asdict(facts.host),
            "agent_version": facts.agent_version,
            "task_kinds": json.dumps(facts.task_kinds, separators=(",", ":")),
            "inventory_digest": facts.inventory_digest,
            "clock_offset": facts.clock_offset,
            "session_epoch": state.epoch,
            "gateway_id": state.gateway_id,
            "nonce": state.nonces.current,
            "previous_nonce": state.nonces.previous,
            "boot_id": state.boot_id,
            "journal_id": facts.journal_id,
            "suspected_clone": state.suspected_clone,
            "certificate_expire_time": session.certificate_expire_time,
            "update_time": session.now,
            "revision": revision,
        }
        rows.append(row)
    await _WRITE_SESSION.run_each(work.connection, rows)


_SUSPECT = Prepared(
    update(agents)
    .where(agents.c.agent_id == bindparam("of"), alive())
    .values(
        suspected_clone=True,
        presence_detail=bindparam("detail"),
        update_time=bindparam("at"),
        revision=bindparam("number"),
    )
)


async def write_suspicions(work: UnitOfWork, agent_ids: Mapping[str, int], detail: str) -> None:
    """Mark agents, each at its instant, as ones of which a copy may be running; sessions stay as they are."""
    if not agent_ids:
        return
    revision = await work.revision()
    rows = [
        {"of": agent_id, "detail": detail, "at": now, "number": revision}
        for agent_id, now in agent_ids.items()
    ]
    await _SUSPECT.run_each(work.connection, rows)


_WRITE_TRANSITION = Prepared(
    update(agents)
    .where(
        agents.c.agent_id == bindparam("of"),
        agents.c.session_epoch == bindparam("of_epoch"),
        agents.c.presence == bindparam("of_presence"),
        alive(),
    )
    .values(
        presence=bindparam("to_presence"),
        # Since when: another reason for the same presence does not begin it anew.
        presence_time=case(
            (agents.c.presence == bindparam("to_presence"), agents.c.presence_time), else_=bindparam("to_now")
        ),
        presence_reason=bindparam("to_reason"),
        gateway_id=case(
            (bindparam("to_same_gateway", type_=Integer) == 1, agents.c.gateway_id),
            else_=bindparam("to_gateway", type_=String),
        ),
        presence_detail=bindparam("to_detail"),
        update_time=bindparam("to_now"),
        revision=bindparam("to_revision"),
    )
)


# A session that was late, or silent, is still held; the end of one leaves no one who holds it.
_STILL_HELD = (PresenceReason.HEARTBEAT_LATE, PresenceReason.SILENT)


async def write_transitions(
    work: UnitOfWork, transitions: Sequence[tuple[Transition, int]], gateway_id: str | None = None
) -> None:
    """Write changes of presence, each with its time; who comes ONLINE is held by the process ``gateway_id``.

    An agent whose session or presence is no longer the one that was judged stays as it is.
    """
    revision = await work.revision()
    rows = [
        {
            "of": transition.agent_id,
            "of_epoch": transition.epoch,
            "of_presence": transition.before.value,
            "to_presence": transition.after.value,
            "to_reason": transition.reason.value,
            "to_same_gateway": int(transition.reason in _STILL_HELD),
            "to_gateway": gateway_id if transition.after is Presence.ONLINE else None,
            "to_detail": transition.detail,
            "to_now": now,
            "to_revision": revision,
        }
        for transition, now in transitions
    ]
    await _WRITE_TRANSITION.run_each(work.connection, rows)


_WRITE_BEAT = Prepared(
    update(agents)
    .where(
        agents.c.agent_id == bindparam("of"),
        alive(),
        or_(agents.c.last_seen_time.is_(None), agents.c.last_seen_time < bindparam("seen")),
    )
    .values(last_seen_time=bindparam("seen"))
)


async def write_beats(connection: AsyncConnection, last_seen: Mapping[str, int]) -> None:
    """Move the last-seen times forward."""
    rows = [{"of": agent_id, "seen": seen} for agent_id, seen in last_seen.items()]
    await _WRITE_BEAT.run_each(connection, rows)


async def online(connection: AsyncConnection, gateway_id: str) -> Mapping[str, int]:
    """Return the session epochs of all agents that are ONLINE at the process ``gateway_id``."""
    # One row: the driver gives up the interpreter's lock for each, and a fleet has many.
    session = agents.c.agent_id + "/" + cast(agents.c.session_epoch, String)
    statement = select(func.aggregate_strings(session, ",")).where(
        agents.c.gateway_id == gateway_id, agents.c.presence == Presence.ONLINE.value, alive()
    )
    found: str | None = (await connection.execute(statement)).scalar()
    sessions = (pair.rpartition("/") for pair in found.split(",")) if found else ()
    return {agent_id: int(epoch) for agent_id, _, epoch in sessions}


async def sightings(
    connection: AsyncConnection, gateway_id: str, beats: Mapping[str, int], agent_ids: Iterable[str]
) -> list[Sighting]:
    """Return what is known of ``agent_ids``, and of every agent that is STALE at the process ``gateway_id``.

    ``beats`` are of live sessions.
    """
    stale = and_(agents.c.presence == Presence.STALE.value, agents.c.gateway_id == gateway_id)
    found = await _sightings(connection, beats, stale)
    wanted = sorted(set(agent_ids) - {sighting.agent_id for sighting in found})
    for first in range(0, len(wanted), IDS_AT_ONCE):
        some = wanted[first : first + IDS_AT_ONCE]
        found += await _sightings(connection, beats, agents.c.agent_id.in_(some))
    return found


def _held_by_none(holders: Select[str]) -> ColumnElement[bool]:
    return or_(agents.c.gateway_id.is_(None), agents.c.gateway_id.not_in(holders))


async def absent(connection: AsyncConnection, holders: Select[str]) -> list[Sighting]:
    """Return what is known of every STALE agent that none of the processes ``holders`` holds."""
    stale = agents.c.presence == Presence.STALE.value
    return await _sightings(connection, {}, and_(stale, _held_by_none(holders)))


async def close_sessions(work: UnitOfWork, holders: Select[str], detail: str, now: int) -> int:
    """Make STALE who is ONLINE at none of the processes ``holders``; returns how many."""
    closing = and_(agents.c.presence == Presence.ONLINE.value, alive(), _held_by_none(holders))
    # Looked at first: a transaction takes a number only where it changes something.
    found = await work.connection.execute(select(agents.c.agent_id).where(closing).limit(1))
    if found.scalar() is None:
        return 0
    closed = await work.connection.execute(
        update(agents)
        .where(closing)
        .values(
            presence=Presence.STALE.value,
            presence_time=now,
            presence_reason=PresenceReason.SERVER_ENDED.value,
            presence_detail=detail,
            gateway_id=None,
            update_time=now,
            revision=await work.revision(),
        )
    )
    return closed.rowcount


async def _sightings(
    connection: AsyncConnection, beats: Mapping[str, int], condition: ColumnElement[bool]
) -> list[Sighting]:
    statement = select(
        agents.c.agent_id,
        agents.c.session_epoch,
        agents.c.presence,
        agents.c.presence_reason,
        agents.c.presence_time,
        agents.c.last_seen_time,
    ).where(condition, alive())
    return [
        Sighting(
            agent_id=row.agent_id,
            epoch=row.session_epoch,
            presence=Presence(row.presence),
            reason=PresenceReason(row.presence_reason),
            since=row.presence_time,
            last_seen=row.last_seen_time,
            beat=beats.get(row.agent_id),
        )
        for row in await connection.execute(statement)
    ]
