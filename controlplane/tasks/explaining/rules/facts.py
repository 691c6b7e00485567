"""What must be known of a task or an agent to explain it.

Instants and durations are microseconds; states are the contract's names without their prefix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """One agent that is not deleted; ``stale_after`` and ``offline_after`` are silences."""

    agent_id: str
    presence: str
    presence_time: int
    presence_reason: str
    presence_detail: str
    last_seen_time: int | None
    session_epoch: int
    journal_id: str
    task_kinds: tuple[str, ...]
    suspected_clone: bool
    certificate_expire_time: int | None
    clock_offset: int
    stale_after: int
    offline_after: int

    @property
    def online(self) -> bool:
        """Whether its heartbeat stream is open and its beats come in time."""
        return self.presence == "ONLINE"

    @property
    def offline(self) -> bool:
        """Whether it is given up for now; one that is STALE may still come back to its session."""
        return self.presence == "OFFLINE"


@dataclass(frozen=True, slots=True)
class AttemptFacts:
    """One attempt; ``outcome`` is empty where no result came, ``reason`` is the agent's text."""

    attempt_id: str
    number: int
    state: str
    session_epoch: int
    lease_time: int
    lease_expire_time: int
    accept_time: int | None
    run_deadline: int | None
    end_time: int | None
    outcome: str
    reason: str


@dataclass(frozen=True, slots=True)
class WindowFacts:
    """The maintenance window that a task is meant for, from ``begin`` until ``end``, and the one after it.

    ``following`` is (begin, end) of the window in which the task would wait if it missed this one; None
    where the window can no longer be read. ``begin`` means nothing once ``end`` is over.
    """

    cron: str
    zone: str
    begin: int
    end: int
    following: tuple[int, int] | None

    @property
    def name(self) -> str:
        """Which window, as its creator wrote it."""
        return f"'{self.cron}' in {self.zone}"


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """One task.

    ``current`` is the attempt that it is about now, ``decided`` the one whose result decided it and
    ``last`` the newest one. ``ahead`` is how many tasks go to the agent before it, ``in_hand`` how many
    other attempts the agent has. ``sent_time`` and ``cancel_time`` are from the ledger, and None where it
    does not say. ``agent`` is None where it is deleted. ``offline_policy`` is the contract's name without
    its prefix, ``supersede_key`` is empty for none. ``superseded`` says that a later task of its key came
    while it was open, ``has_later`` that there is one now. ``replayed_as`` is the newest task that does it
    anew, and empty for none.
    """

    task_id: str
    agent_id: str
    kind: str
    state: str
    state_time: int
    state_reason: str
    cancel_requested: bool
    idempotent: bool
    max_attempts: int
    attempt_count: int
    failed_count: int
    progress_percent: int
    progress_message: str
    expire_time: int
    not_before: int
    agent: AgentFacts | None
    current: AttemptFacts | None = None
    decided: AttemptFacts | None = None
    last: AttemptFacts | None = None
    ahead: int = 0
    in_hand: int = 0
    sent_time: int | None = None
    cancel_time: int | None = None
    cancel_detail: str = ""
    offline_policy: str = "QUEUE"
    supersede_key: str = ""
    superseded: bool = False
    has_later: bool = False
    replayed_as: str = ""
    window: WindowFacts | None = None

    @property
    def skips(self) -> bool:
        """Whether it does not wait for an agent that is OFFLINE."""
        return self.offline_policy == "SKIP"


@dataclass(frozen=True, slots=True)
class OpenWork:
    """An agent's tasks that are not final: how many by state, the oldest's creation, the nearest expiry.

    ``skipping`` is how many of those that wait do not wait for an agent that is OFFLINE.
    """

    counts: Mapping[str, int]
    oldest: int | None = None
    expires: int | None = None
    skipping: int = 0
