"""What agents' streams change of their agents, as operations of the group-commit writer.

Each applier reads the agents of all its operations with one statement, decides by
``rules``, and writes with one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from controlplane.agents import rules
from controlplane.agents.records import SessionFacts, SessionOpened
from controlplane.agents.rules import Presence, PresenceReason, Transition
from controlplane.agents.store import presence as store
from controlplane.errors import PermissionDenied, ServiceError, Unauthenticated
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.storage.writer import Writer
from controlplane.wakeups import WakeUps

JournalsLost = Callable[[UnitOfWork, Mapping[str, int]], Awaitable[object]]
"""Takes part in the commit of sessions that came with another journal.

It gets the agents' ids, each with the instant in microseconds. What agents had in hand is
given up in the commit that stores the new journal, or the loss would show only once.
"""

TOPIC = "agents"
"""The wake-up that says that an agent changed."""

_SUSPICION = (
    "showed a session nonce that an earlier session had used up: a copy of this agent, or one restored from "
    "an image, may be running; enrol it again to clear this"
)
_TURNED_AWAY = (
    "one that showed a used session nonce was turned away: a copy of this agent, or one restored from an "
    "image, may be running; stop the copy, then clear this or enrol the agent again"
)


@dataclass(frozen=True, slots=True)
class OpenSession:
    """An agent said Hello; its outcome is a ``SessionOpened``.

    Refused with ``Unauthenticated`` CERTIFICATE_REVOKED where the agent is unknown or
    deleted, and with ``PermissionDenied`` CLONE_SUSPECTED where it showed a used nonce and
    those are refused: the agent is marked then, and nothing else changes. ``next_nonce``
    is what Welcome will hand out, ``gateway_id`` the process that holds the session. Instants
    are microseconds.
    """

    agent_id: str
    facts: SessionFacts
    certificate_expire_time: int
    next_nonce: bytes
    now: int
    gateway_id: str = ""

    @property
    def key(self) -> str:
        """What it is about: the agent."""
        return self.agent_id


@dataclass(frozen=True, slots=True)
class ChangePresence:
    """A session reports that its agent's presence changed; its outcome is whether it did.

    It changes nothing where ``epoch`` is not the agent's last session: the end of an old
    session says nothing of the new one. ``now`` is in microseconds.
    """

    agent_id: str
    epoch: int
    presence: Presence
    reason: PresenceReason
    detail: str
    now: int

    @property
    def key(self) -> str:
        """What it is about: the agent."""
        return self.agent_id


def register_operations(
    writer: Writer,
    wakeups: WakeUps,
    on_journals_lost: Iterable[JournalsLost] = (),
    *,
    refuse_clones: bool = False,
) -> None:
    """Let ``writer`` apply this room's operations.

    ``on_journals_lost`` take part in OpenSession; with ``refuse_clones``, who shows a used
    nonce gets none.
    """

    async def open_sessions(
        work: UnitOfWork, operations: Sequence[OpenSession]
    ) -> Sequence[SessionOpened | ServiceError]:
        return await _open_sessions(work, operations, wakeups, on_journals_lost, refuse_clones)

    async def change_presences(work: UnitOfWork, operations: Sequence[ChangePresence]) -> Sequence[bool]:
        return await _change_presences(work, operations, wakeups)

    writer.register(OpenSession, open_sessions)
    writer.register(ChangePresence, change_presences)


async def _open_sessions(
    work: UnitOfWork,
    operations: Sequence[OpenSession],
    wakeups: WakeUps,
    on_journals_lost: Iterable[JournalsLost],
    refuse_clones: bool,
) -> Sequence[SessionOpened | ServiceError]:
    states = await store.session_states(work.connection, [operation.agent_id for operation in operations])
    outcomes: list[SessionOpened | ServiceError] = []
    sessions: list[store.NewSession] = []
    lost: dict[str, int] = {}
    replaced: dict[str, int] = {}
    suspects: dict[str, int] = {}
    for operation in operations:
        state = states.get(operation.agent_id)
        if state is None:
            outcomes.append(_unknown(operation.agent_id))
            continue
        session, outcome = _open(state, operation)
        if outcome.suspected_clone and refuse_clones:
            outcomes.append(_clone(operation.agent_id))
            if not state.suspected_clone:
                suspects[operation.agent_id] = operation.now
            continue
        sessions.append(session)
        outcomes.append(outcome)
        if outcome.journal_changed:
            lost[operation.agent_id] = operation.now
        if state.gateway_id not in (None, operation.gateway_id):
            replaced[operation.agent_id] = outcome.epoch
    await store.write_suspicions(work, suspects, _TURNED_AWAY)
    if sessions:
        await store.write_sessions(work, sessions)
        for hook in on_journals_lost if lost else ():
            await hook(work, lost)
    if sessions or suspects:
        work.after_commit(lambda: wakeups.notify(TOPIC))
        # Another process may still hold the session that this one takes the place of.
        work.after_commit(lambda: wakeups.replaced(replaced))
    return outcomes


def _open(state: store.SessionState, operation: OpenSession) -> tuple[store.NewSession, SessionOpened]:
    facts = operation.facts
    nonces, suspected = rules.rotate_nonce(state.nonces, facts.shown_nonce, operation.next_nonce)
    opened = SessionOpened(
        epoch=state.epoch + 1,
        restarted=state.boot_id not in ("", facts.boot_id),
        journal_changed=state.journal_id not in ("", facts.journal_id),
        suspected_clone=suspected,
    )
    after = replace(
        state,
        epoch=opened.epoch,
        gateway_id=operation.gateway_id or None,
        presence=Presence.ONLINE,
        presence_time=state.presence_time if state.presence is Presence.ONLINE else operation.now,
        presence_reason=PresenceReason.SESSION_OPENED,
        nonces=nonces,
        boot_id=facts.boot_id,
        journal_id=facts.journal_id,
        suspected_clone=state.suspected_clone or suspected,
    )
    session = store.NewSession(
        agent_id=operation.agent_id,
        state=after,
        facts=facts,
        detail=_SUSPICION if suspected else "",
        certificate_expire_time=operation.certificate_expire_time,
        now=operation.now,
    )
    return session, opened


def _unknown(agent_id: str) -> Unauthenticated:
    return Unauthenticated(
        "CERTIFICATE_REVOKED", f"no agent {agent_id!r} is enrolled, or it was deleted: enrol again"
    )


def _clone(agent_id: str) -> PermissionDenied:
    return PermissionDenied(
        "CLONE_SUSPECTED",
        f"hello.session_nonce: an earlier session of {agent_id!r} used it up, so this is a copy or was "
        "restored from an image; an operator must stop the copy and clear the suspicion, or enrol it again",
    )


async def _change_presences(
    work: UnitOfWork, operations: Sequence[ChangePresence], wakeups: WakeUps
) -> Sequence[bool]:
    states = await store.session_states(work.connection, [operation.agent_id for operation in operations])
    transitions = [_transition(states.get(operation.agent_id), operation) for operation in operations]
    changes = [
        (transition, operation.now)
        for transition, operation in zip(transitions, operations, strict=True)
        if transition is not None
    ]
    if changes:
        await store.write_transitions(work, changes)
        work.after_commit(lambda: wakeups.notify(TOPIC))
    return [transition is not None for transition in transitions]


def _transition(state: store.SessionState | None, operation: ChangePresence) -> Transition | None:
    if state is None or state.epoch != operation.epoch:
        return None
    before, after = (state.presence, state.presence_reason), (operation.presence, operation.reason)
    if not rules.changes_presence(before, after):
        return None
    return Transition(
        operation.agent_id,
        state.epoch,
        state.presence,
        operation.presence,
        operation.reason,
        operation.detail,
    )
