"""What enrolment and administrators change, one agent at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from controlplane.agents.records import HostRecord
from controlplane.agents.rules import Editable, Presence, PresenceReason, bucket
from controlplane.agents.store.reading import GROUPS, etag, groups_in, labels_of
from controlplane.agents.store.tables import agent_groups, agent_labels, agents
from controlplane.storage.unit_of_work import UnitOfWork


@dataclass(frozen=True, slots=True)
class Entry:
    """What the register holds of an agent, deleted or not."""

    deleted: bool
    etag: str
    editable: Editable


async def entry(connection: AsyncConnection, agent_id: str) -> Entry | None:
    """Return the entry of an agent, which is to be changed; None where it was never enrolled."""
    statement = (
        select(agents.c.notes, agents.c.edit_version, agents.c.delete_time, agents.c.suspected_clone, GROUPS)
        .where(agents.c.agent_id == agent_id)
        .with_for_update(of=agents)
    )
    row = (await connection.execute(statement)).one_or_none()
    if row is None:
        return None
    labels = (await labels_of(connection, [agent_id]))[agent_id]
    editable = Editable(labels, row.notes, bool(row.suspected_clone), groups_in(row.groups))
    return Entry(row.delete_time is not None, etag(row.edit_version), editable)


# Whoever comes next is believed, whatever nonce it shows.
_UNSUSPECTED = {"nonce": None, "previous_nonce": None, "suspected_clone": False}


async def enrol(
    work: UnitOfWork, agent_id: str, labels: Mapping[str, str], host: HostRecord, now: int
) -> None:
    """Add an agent that was never enrolled."""
    identity = {"agent_id": agent_id, "bucket": bucket(agent_id), "edit_version": 1}
    fresh = {**_never_connected(now), **identity, **asdict(host)}
    await work.connection.execute(insert(agents), {**fresh, "revision": await work.revision()})
    await _write_labels(work, agent_id, labels)


async def revive(
    work: UnitOfWork, agent_id: str, labels: Mapping[str, str], host: HostRecord, now: int
) -> None:
    """Enrol anew over a tombstone; the session epoch and the edit version go on from where they were."""
    values = {**_never_connected(now), "delete_time": None, **asdict(host)}
    await _edit(work, agent_id, now, **values)
    await _write_labels(work, agent_id, labels)


async def replace(
    work: UnitOfWork, agent_id: str, labels: Mapping[str, str], host: HostRecord, now: int
) -> None:
    """Enrol an agent anew that is enrolled: who shows the token is the agent, so suspicion ends here."""
    await _edit(work, agent_id, now, **_UNSUSPECTED, **asdict(host))
    await _write_labels(work, agent_id, labels)


async def write_editable(
    work: UnitOfWork,
    agent_id: str,
    editable: Editable,
    groups: Sequence[str],
    now: int,
    *,
    cleared: bool,
) -> None:
    """Replace an agent's labels, notes and, where ``groups`` are others, its groups.

    ``cleared`` takes away the suspicion that it is a clone.
    """
    await _edit(work, agent_id, now, notes=editable.notes, **(_UNSUSPECTED if cleared else {}))
    await _write_labels(work, agent_id, editable.labels)
    if groups != editable.groups:
        await _write_groups(work, agent_id, editable.groups)


async def bury(work: UnitOfWork, agent_id: str, detail: str, now: int) -> None:
    """Make a tombstone of an agent."""
    values = {
        "presence": Presence.OFFLINE.value,
        "presence_time": now,
        "presence_reason": PresenceReason.DELETED.value,
        "presence_detail": detail,
        "notes": "",
        "delete_time": now,
    }
    await _edit(work, agent_id, now, **values)
    await _write_labels(work, agent_id, {})
    await _write_groups(work, agent_id, ())


def _never_connected(now: int) -> dict[str, object]:
    return {
        "presence": Presence.OFFLINE.value,
        "presence_time": now,
        "presence_reason": PresenceReason.NEVER_CONNECTED.value,
        "presence_detail": "",
        "last_seen_time": None,
        "agent_version": "",
        "task_kinds": "[]",
        "inventory_digest": "",
        "clock_offset": 0,
        "nonce": None,
        "previous_nonce": None,
        "boot_id": "",
        "journal_id": "",
        "suspected_clone": False,
        "certificate_expire_time": None,
        "enroll_time": now,
        "update_time": now,
    }


async def _edit(work: UnitOfWork, agent_id: str, now: int, **values: object) -> None:
    values |= {
        "edit_version": agents.c.edit_version + 1,
        "update_time": now,
        "revision": await work.revision(),
    }
    await work.connection.execute(update(agents).where(agents.c.agent_id == agent_id).values(**values))


async def _write_labels(work: UnitOfWork, agent_id: str, labels: Mapping[str, str]) -> None:
    await work.connection.execute(delete(agent_labels).where(agent_labels.c.agent_id == agent_id))
    rows = [{"agent_id": agent_id, "key": key, "value": value} for key, value in labels.items()]
    if rows:
        await work.connection.execute(insert(agent_labels), rows)


async def _write_groups(work: UnitOfWork, agent_id: str, groups: Sequence[str]) -> None:
    await work.connection.execute(delete(agent_groups).where(agent_groups.c.agent_id == agent_id))
    if groups:
        await work.connection.execute(
            insert(agent_groups), [{"agent_id": agent_id, "name": name} for name in groups]
        )
