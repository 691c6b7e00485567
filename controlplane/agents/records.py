"""The room's own shapes of an agent, between its store, service, operations and handler.

Instants and durations are whole microseconds; instants since the Unix epoch, UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from controlplane.agents.rules import Presence, PresenceReason, Transition
from controlplane.storage.watching import Change


@dataclass(frozen=True, slots=True)
class HostRecord:
    """Facts of a host, as its agent sees them."""

    hostname: str = ""
    os_family: str = ""
    os_name: str = ""
    os_version: str = ""
    kernel_version: str = ""
    architecture: str = ""


@dataclass(frozen=True, slots=True)
class Registration:
    """An agent that a join token lets in, with the labels that the token gives it."""

    agent_id: str
    labels: Mapping[str, str]
    host: HostRecord


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """What an agent says of itself in Hello.

    ``shown_nonce`` is the last one that it stored, empty for none.
    ``clock_offset`` is its clock less the server's.
    """

    agent_version: str
    boot_id: str
    journal_id: str
    shown_nonce: bytes
    task_kinds: tuple[str, ...]
    inventory_digest: str
    host: HostRecord
    clock_offset: int


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """What a session got: its epoch, and what is new about the agent that opened it.

    ``restarted``: the agent's process is another one than in its last session.
    ``journal_changed``: the agent lost its journal since its last session, so what it ran
    then is interrupted. ``suspected_clone``: this session showed a nonce that an earlier
    one had used up.
    """

    epoch: int
    restarted: bool
    journal_changed: bool
    suspected_clone: bool


@dataclass(frozen=True, slots=True)
class LiveSession:
    """A session that a process holds: its epoch and its last beat."""

    epoch: int
    beat: int


@dataclass(frozen=True, slots=True)
class Health:
    """What a look at the sessions of a process found.

    ``outlived`` are agents that have a newer session than the one here, with its epoch.
    """

    moved: Sequence[Transition]
    outlived: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class AgentRecord:
    """One agent that is not deleted."""

    agent_id: str
    labels: Mapping[str, str]
    notes: str
    presence: Presence
    presence_time: int
    presence_reason: PresenceReason
    presence_detail: str
    last_seen_time: int | None
    host: HostRecord
    agent_version: str
    task_kinds: tuple[str, ...]
    inventory_digest: str
    clock_offset: int
    session_epoch: int
    journal_id: str
    suspected_clone: bool
    certificate_expire_time: int | None
    enroll_time: int
    update_time: int
    etag: str
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AgentChange:
    """What a watch reports. ``agent`` is None in REMOVED and SYNCED, ``agent_id`` empty in SYNCED."""

    change: Change
    agent_id: str
    agent: AgentRecord | None
    resume_token: str


@dataclass(frozen=True, slots=True)
class AgentPage:
    """A page of agents, ordered by id. ``total_size`` is of the first page, and 0 on later ones."""

    agents: Sequence[AgentRecord]
    next_page_token: str
    total_size: int
