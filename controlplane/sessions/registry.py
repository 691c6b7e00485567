"""The live sessions of this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

from fleetwright.v1 import agent_service_pb2 as pb2

from controlplane.errors import Aborted, FailedPrecondition, ServiceError, Unauthenticated
from controlplane.sessions import rules

ANNOUNCE_AGAIN = 15.0
"""Seconds after which an agent that did not open its Tasks stream is asked once more."""


SESSION_REPLACED = int(pb2.RECONNECT_REASON_SESSION_REPLACED)
"""The reason of a session that a newer one took the place of."""


class EndableStream(Protocol):
    """A Tasks or Telemetry stream that hangs on a session."""

    def end(self, error: ServiceError | None) -> None:
        """End the stream soon; with ``error``, as refused."""


class WorkStream(EndableStream, Protocol):
    """An open Tasks stream."""

    def wake(self, *, stopping: bool = False) -> None:
        """Look for work; with ``stopping``, for attempts to be stopped too."""


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a session is ended from our side.

    ``reason`` is the contract's ReconnectReason, ``after`` the wait that it comes
    with; reason 0 sends no Reconnect. ``error`` closes the stream as refused
    instead of in order.
    """

    reason: int
    error: ServiceError | None = None
    after: timedelta = timedelta(0)


@dataclass(slots=True, eq=False)
class Session:
    """One agent's live session: what must be known while its heartbeat stream is open.

    ``lock`` is held while a message is written. gRPC takes one message at a time, and one
    whose writing was cancelled is still under way to it: so an end waits for the write, and
    after one that was given up (``unwritable``) nothing is written.
    """

    agent_id: str
    epoch: int
    serial: str
    journal_id: str
    interval: float
    last_beat: int
    task: asyncio.Task[Any]
    context: Any
    announce: Callable[[Session], Coroutine[Any, Any, None]]
    reported_beat: int = 0
    ending: Ending | None = None
    work: WorkStream | None = None
    telemetry: EndableStream | None = None
    announced: float = float("-inf")
    expiry: asyncio.TimerHandle | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    unwritable: bool = False
    cancelled: bool = False

    def end(self, ending: Ending) -> None:
        """End the session from our side. The first reason stands."""
        if self.ending is not None:
            return
        self.ending = ending
        for stream in (self.work, self.telemetry):
            if stream is not None:
                stream.end(ending.error)
        if not self.lock.locked():
            self.carry_out()

    def carry_out(self) -> None:
        """Carry out an end that waited for a write; without one, or done already, nothing happens."""
        if self.ending is not None and not self.cancelled:
            self.cancelled = True
            self.task.cancel()


def stale_session(agent_id: str, epoch: int) -> FailedPrecondition:
    """Return the refusal of a stream whose epoch is not the live session of this process."""
    return FailedPrecondition(
        "SESSION_STALE",
        f"open.session_epoch: {epoch} is not the live session of {agent_id} here; say Hello again",
        metadata={"session_epoch": str(epoch)},
    )


def replaced(agent_id: str) -> Aborted:
    """Return the ending of a session that a newer one of the same agent replaced."""
    return Aborted("SESSION_REPLACED", f"a newer session of {agent_id} took over; leave unless that is you")


def revoked(agent_id: str) -> Unauthenticated:
    """Return the ending of a session whose certificate was revoked."""
    return Unauthenticated(
        "CERTIFICATE_REVOKED", f"the certificate of {agent_id} was revoked; enrol again to come back"
    )


class Registry:
    """Sessions by agent id."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._background: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._sessions.values()))

    def enter(self, session: Session, replaced_reason: int) -> None:
        """Make ``session`` the live one and end the one that it replaces.

        Raises ``Aborted`` SESSION_REPLACED where a newer one is here already: two
        Hellos of one agent may be committed in one order and arrive here in the other.
        """
        former = self._sessions.get(session.agent_id)
        if former is not None and not rules.supersedes(session.epoch, former.epoch):
            raise replaced(session.agent_id)
        self._sessions[session.agent_id] = session
        if former is not None:
            former.end(Ending(replaced_reason, replaced(session.agent_id)))

    def outlive(self, epochs: Mapping[str, int]) -> None:
        """End the sessions of agents that have a newer one elsewhere: ``epochs`` are the newest."""
        for agent_id, epoch in epochs.items():
            session = self._sessions.get(agent_id)
            if session is not None and rules.supersedes(epoch, session.epoch):
                session.end(Ending(SESSION_REPLACED, replaced(agent_id)))

    def leave(self, session: Session) -> None:
        """Forget ``session``, unless a newer one is live."""
        if self._sessions.get(session.agent_id) is session:
            del self._sessions[session.agent_id]
        for stream in (session.work, session.telemetry):
            if stream is not None:
                stream.end(stale_session(session.agent_id, session.epoch))

    def live(self, agent_id: str, serial: str, epoch: int) -> Session:
        """Return the live session of an agent. Raises ``FailedPrecondition`` SESSION_STALE.

        ``serial`` is the caller's certificate: it must be the one that the session was
        opened with, so that one which a renewal has replaced opens no stream.
        """
        session = self._sessions.get(agent_id)
        if (
            session is None
            or session.ending is not None
            or (session.serial, session.epoch) != (serial, epoch)
        ):
            raise stale_session(agent_id, epoch)
        return session

    def get(self, agent_id: str) -> Session | None:
        """Return the live session of an agent, or None."""
        return self._sessions.get(agent_id)

    def wake(self, agent_ids: Iterable[str], *, stopping: bool = False) -> None:
        """Let agents look for work, and with ``stopping`` for attempts to be stopped."""
        for agent_id in agent_ids:
            session = self._sessions.get(agent_id)
            if session is not None:
                self.wake_session(session, stopping=stopping)

    def wake_session(self, session: Session, *, stopping: bool = False) -> None:
        """Let one session's agent look: over its Tasks stream, or by asking it to open one."""
        if session.work is not None:
            session.work.wake(stopping=stopping)
            return
        now = asyncio.get_running_loop().time()
        if session.ending is None and now - session.announced > ANNOUNCE_AGAIN:
            session.announced = now
            self.run_aside(session.announce(session))

    def run_aside(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something to its end although the stream that began it may end before."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def settled(self) -> None:
        """Wait until nothing runs aside."""
        while self._background:
            await asyncio.wait(set(self._background))
