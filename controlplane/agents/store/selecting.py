"""Filters over agents as SQL, and selectors that other rooms put into statements of theirs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, SQLColumnExpression, Subquery, and_, select, true

from controlplane.agents.rules import BUCKETS, Presence, first_bucket
from controlplane.agents.store.tables import agent_groups, agent_labels, agents
from controlplane.filtering import (
    BooleanField,
    EnumField,
    FilterSchema,
    LabelsField,
    NamesField,
    TextField,
    TimestampField,
    read,
)
from controlplane.filtering.schema import FieldType
from controlplane.storage.filters import LabelTable, NameTable, compile_filter

Holders = Select[str]
"""Ids of processes, which another room selects; opaque to all but stores."""

SessionStates = Subquery
"""What ``session_states`` and ``living`` give; opaque to all but stores."""

EVERYONE = "*"
"""The selector of all agents, and the same as an empty filter."""

_FIELDS: Mapping[str, FieldType] = {
    "agent_id": TextField(),
    "presence": EnumField({presence.name: presence.value for presence in Presence}, prefix="PRESENCE_"),
    "presence_time": TimestampField(),
    "last_seen_time": TimestampField(),
    "enroll_time": TimestampField(),
    "update_time": TimestampField(),
    "hostname": TextField(),
    "os_family": TextField(),
    "os_name": TextField(),
    "os_version": TextField(),
    "architecture": TextField(),
    "agent_version": TextField(),
    "suspected_clone": BooleanField(),
    "notes": TextField(),
}

SCHEMA = FilterSchema(
    fields={**_FIELDS, "labels": LabelsField(), "groups": NamesField()}, searched=("agent_id", "hostname")
)

_COLUMNS: Mapping[str, SQLColumnExpression[Any]] = {name: agents.c[name] for name in _FIELDS}

_LABELS = LabelTable(
    listed=agents.c.agent_id,
    owner=agent_labels.c.agent_id,
    key=agent_labels.c.key,
    value=agent_labels.c.value,
)
_GROUPS = NameTable(listed=agents.c.agent_id, owner=agent_groups.c.agent_id, name=agent_groups.c.name)


def alive() -> ColumnElement[bool]:
    """Return the condition of an agent that is not deleted."""
    return agents.c.delete_time.is_(None)


def matching(text: str, *, field: str = "filter") -> ColumnElement[bool]:
    """Return the condition of a filter over agents; NULL counts as false. Deleted agents may match.

    Raises ``FilterError``, which names the request's ``field``.
    """
    if text.strip() in ("", EVERYONE):
        return true()
    return compile_filter(read(text, SCHEMA, field=field), _COLUMNS, _LABELS, {"groups": _GROUPS})


@dataclass(frozen=True, slots=True)
class Selector:
    """All agents that match a filter, or a percentage of them, as a statement that another room makes part
    of its own.

    ``statement`` has the one column ``agent_id``, of agents that are not deleted at the
    moment at which it runs. Only stores look into it.
    """

    text: str
    statement: Select[str]


def selector(text: str, *, percentage: int = 100, seed: int = 0, field: str = "selector") -> Selector:
    """Return the selector of a filter, ``*`` for all agents; of ``percentage`` of them, chosen by ``seed``.

    An agent's place depends on its id alone, so the choice is the same each time, and a
    larger percentage of one seed holds all of a smaller one. Raises ``FilterError``,
    which names the request's ``field``.
    """
    conditions = [alive(), matching(text, field=field)]
    if percentage < 100:
        turned = (agents.c.bucket + (BUCKETS - first_bucket(seed))) % BUCKETS
        conditions.append(turned < percentage * (BUCKETS // 100))
    return Selector(text, select(agents.c.agent_id).where(and_(*conditions)))


def living() -> Subquery:
    """Return (agent_id, online, offline) of every agent that is not deleted, as ``session_states`` does.

    One that is STALE is neither ONLINE nor OFFLINE.
    """
    online = (agents.c.presence == int(Presence.ONLINE)).label("online")
    offline = (agents.c.presence == int(Presence.OFFLINE)).label("offline")
    return select(agents.c.agent_id, online, offline).where(alive()).subquery()


def session_states() -> Subquery:
    """Return (agent_id, session_epoch, online) of every agent, as a part of another room's statement.

    ``online`` is false only of an agent that is OFFLINE: one that is STALE may still come
    back with what it has in hand.
    """
    online = (agents.c.presence != int(Presence.OFFLINE)).label("online")
    return select(agents.c.agent_id, agents.c.session_epoch, online).subquery()
