"""The Heartbeat stream: a session from Hello to its end."""

from __future__ import annotations

import asyncio
import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from fleetwright.v1 import agent_service_pb2 as pb2
from google.protobuf.duration_pb2 import Duration

from controlplane.agents.operations import ChangePresence, OpenSession
from controlplane.agents.records import HostRecord, SessionFacts, SessionOpened
from controlplane.agents.rules import Presence, PresenceReason
from controlplane.callers import Caller
from controlplane.clock import Clock, from_micros, to_micros
from controlplane.errors import (
    FailedPrecondition,
    InvalidArgument,
    ResourceExhausted,
    ServiceError,
    Unauthenticated,
    Unavailable,
)
from controlplane.identity.service import IdentityService
from controlplane.sessions import reading, rules
from controlplane.sessions.admissions import Admissions
from controlplane.sessions.limits import SessionPolicy
from controlplane.sessions.registry import Ending, Registry, Session, revoked
from controlplane.sessions.writing import uncancel, write
from controlplane.storage.writer import Writer
from controlplane.tasks.service import TasksService
from controlplane.transport.context import current_caller
from controlplane.transport.messages import host_fields
from controlplane.transport.patience import Patience

if TYPE_CHECKING:
    # A generic class only to the type checker.
    Context = grpc.aio.ServicerContext[Any, Any]

NONCE_BYTES = 16

_log = structlog.get_logger(__name__)

_LOST = Presence.STALE, PresenceReason.STREAM_LOST, "the heartbeat stream ended without a Goodbye"
_REVOKED = Presence.OFFLINE, PresenceReason.CERTIFICATE_ENDED, "the certificate of the session was revoked"
_IN_ORDER = (PresenceReason.GOODBYE, PresenceReason.SERVER_ENDED)
_PRESENCE_AT_END = {
    pb2.RECONNECT_REASON_DRAINING: (
        Presence.STALE,
        PresenceReason.SERVER_ENDED,
        "the server process that held the session stopped",
    ),
    pb2.RECONNECT_REASON_CERTIFICATE_EXPIRED: (
        Presence.OFFLINE,
        PresenceReason.CERTIFICATE_ENDED,
        "the certificate of the session reached its end",
    ),
}


class Heartbeats:
    """Serves the Heartbeat stream of every agent of this process."""

    def __init__(
        self,
        registry: Registry,
        writer: Writer,
        identity: IdentityService,
        tasks: TasksService,
        clock: Clock,
        policy: SessionPolicy,
        process_id: str,
        admissions: Admissions,
    ) -> None:
        self._registry = registry
        self._process_id = process_id
        self._admissions = admissions
        self._writer = writer
        self._identity = identity
        self._tasks = tasks
        self._clock = clock
        self._policy = policy
        self._opening = Patience(policy.first_message_after)
        self._writing = Patience(policy.slow_reader_after)
        self._draining = False

    async def serve(self, context: Context) -> None:
        """Serve one stream; raises the ``ServiceError`` that ends it as refused."""
        caller = current_caller()
        hello = await self._hello(context)
        self._admit(caller)
        with self._admissions.passing(caller.name, live=self._registry.get(caller.name) is not None):
            await self._identity.admit(caller)
            session, welcome = await self._open(context, caller, hello)
        goodbye: pb2.Goodbye | None = None
        try:
            await self._greet(context, session, welcome)
            goodbye = await self._beats(context, session)
        except asyncio.CancelledError:
            # Ours where the session was ended from this side; otherwise the call's own end.
            if session.ending is None:
                raise
            uncancel()
            await self._say_why(context, session, session.ending)
        finally:
            self._left(session, goodbye)
        if session.ending is not None and session.ending.error is not None:
            raise session.ending.error

    async def _hello(self, context: Context) -> pb2.Hello:
        hello: pb2.Hello = await reading.first(context, "hello", self._opening)
        if hello.protocol_version not in rules.PROTOCOL_VERSIONS:
            raise FailedPrecondition(
                "PROTOCOL_VERSION_UNSUPPORTED",
                f"hello.protocol_version: {hello.protocol_version} is not spoken here; this server speaks "
                f"{rules.PROTOCOL_VERSIONS[0]} to {rules.PROTOCOL_VERSIONS[-1]}",
            )
        return hello

    def _admit(self, caller: Caller) -> None:
        if self._draining:
            raise Unavailable("UNAVAILABLE", "this server is stopping", retry_after=self._policy.drain_window)
        # One that has a session takes no place: it replaces its own.
        full = len(self._registry) >= self._policy.max_sessions
        if full and self._registry.get(caller.name) is None:
            raise Unavailable(
                "UNAVAILABLE",
                f"this server holds its {self._policy.max_sessions} sessions; an operator may allow more",
                retry_after=timedelta(seconds=30),
            )

    async def _open(self, context: Context, caller: Caller, hello: pb2.Hello) -> tuple[Session, pb2.Welcome]:
        now = self._now()
        nonce = secrets.token_bytes(NONCE_BYTES)
        opened: SessionOpened = await self._writer.submit(
            OpenSession(caller.name, _facts(hello, now), caller.not_after, nonce, now, self._process_id)
        )
        structlog.contextvars.bind_contextvars(session=opened.epoch)
        _log.debug("session opened", boot=hello.boot_id, version=hello.agent_version)
        if opened.restarted:
            _log.info("agent restarted", boot=hello.boot_id)
        if opened.journal_changed:
            _log.warning("agent came back with another journal")
        if opened.suspected_clone:
            _log.warning("agent showed a used session nonce")
        interval = self._policy.interval(len(self._registry) + 1)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine that runs has a task
        session = Session(
            agent_id=caller.name,
            epoch=opened.epoch,
            serial=caller.serial,
            journal_id=hello.journal_id,
            interval=interval.total_seconds(),
            last_beat=now,
            task=task,
            context=context,
            announce=self._announce,
        )
        self._registry.enter(session, pb2.RECONNECT_REASON_SESSION_REPLACED)
        self._expire_at(session, caller.not_after)
        return session, self._welcome(opened.epoch, nonce, interval, now)

    async def _greet(self, context: Context, session: Session, welcome: pb2.Welcome) -> None:
        """Welcome a session that was entered just now, or end it for what happened while it was committed.

        Between its entry and the first look here nothing else runs: what happens later finds it.
        """
        if self._identity.is_denied(session.serial):
            session.end(Ending(0, revoked(session.agent_id)))
            await asyncio.sleep(0)  # here the end takes hold
        await self._send(context, session, pb2.HeartbeatResponse(welcome=welcome))
        if self._draining:
            session.end(Ending(pb2.RECONNECT_REASON_DRAINING, after=self._policy.drain_window))
        try:
            if await self._tasks.has_work(session.agent_id):
                self._registry.wake_session(session)
        except ServiceError as error:
            # The session is open; the schedule that wakes waiting agents finds the work.
            _log.debug("work not looked for", agent=session.agent_id, error=error.message)

    def _expire_at(self, session: Session, not_after: int) -> None:
        # A connection outlives its certificate, and resumed TLS sessions do not look
        # at expiry: the session ends by our own clock.
        delay = max(0.0, (from_micros(not_after) - self._clock.now()).total_seconds())
        ending = Ending(
            pb2.RECONNECT_REASON_CERTIFICATE_EXPIRED,
            Unauthenticated(
                "CERTIFICATE_EXPIRED", "the certificate has expired; come back with the renewed one"
            ),
        )
        session.expiry = asyncio.get_running_loop().call_later(delay, session.end, ending)

    def _welcome(self, epoch: int, nonce: bytes, interval: timedelta, now: int) -> pb2.Welcome:
        policy = self._policy
        welcome = pb2.Welcome(
            session_epoch=epoch,
            next_nonce=nonce,
            limits=pb2.SessionLimits(
                max_message_bytes=policy.max_message_bytes,
                max_chunk_bytes=policy.max_chunk_bytes,
                max_batch_points=policy.max_batch_points,
                max_credits=policy.max_credits,
            ),
        )
        welcome.heartbeat_interval.FromTimedelta(interval)
        welcome.telemetry_interval.FromTimedelta(policy.sampling(len(self._registry)))
        welcome.server_time.FromMicroseconds(now)
        return welcome

    async def _beats(self, context: Context, session: Session) -> pb2.Goodbye | None:
        loop = asyncio.get_running_loop()
        allowance = rules.beat_allowance(timedelta(seconds=session.interval), loop.time())
        while True:
            message = await context.read()
            if message is grpc.aio.EOF:
                return None
            kind = message.WhichOneof("message")
            if kind == "goodbye":
                goodbye: pb2.Goodbye = message.goodbye
                return goodbye
            if kind != "beat":
                raise InvalidArgument("PROTOCOL_VIOLATION", "message: hello comes only once")
            if not allowance.take(loop.time()):
                raise ResourceExhausted(
                    "RATE_LIMITED",
                    f"beats come faster than one in {session.interval:.0f} s; keep to heartbeat_interval",
                    retry_after=timedelta(seconds=session.interval),
                )
            session.last_beat = self._now()
            await self._send(context, session, self._acknowledgement(session, message.beat.sequence))

    def _acknowledgement(self, session: Session, sequence: int) -> pb2.HeartbeatResponse:
        acknowledged = pb2.BeatAcknowledged(sequence=sequence)
        interval = self._policy.interval(len(self._registry))
        if interval.total_seconds() != session.interval:
            session.interval = interval.total_seconds()
            acknowledged.heartbeat_interval.FromTimedelta(interval)
        return pb2.HeartbeatResponse(beat_acknowledged=acknowledged)

    async def _announce(self, session: Session) -> None:
        """Ask the agent to open a Tasks stream; a stream that just ended has its own bookkeeping."""
        response = pb2.HeartbeatResponse(work_available=pb2.WorkAvailable())
        try:
            await self._send(session.context, session, response)
        except ServiceError as error:
            session.end(Ending(0, error))
        except (grpc.aio.BaseError, asyncio.InvalidStateError) as error:
            # The stream is ending; whoever comes back is told by its Welcome.
            _log.debug(
                "work not announced",
                agent=session.agent_id,
                session=session.epoch,
                error=type(error).__name__,
            )

    async def _send(self, context: Context, session: Session, response: pb2.HeartbeatResponse) -> None:
        try:
            async with session.lock:
                await write(context, response, self._writing)
        except ServiceError:
            session.unwritable = True
            raise
        finally:
            session.carry_out()

    async def _say_why(self, context: Context, session: Session, ending: Ending) -> None:
        if not ending.reason or session.unwritable:
            return
        reconnect = pb2.Reconnect(
            after=_duration(ending.after), reason=pb2.ReconnectReason.ValueType(ending.reason)
        )
        await self._send(context, session, pb2.HeartbeatResponse(reconnect=reconnect))

    def _left(self, session: Session, goodbye: pb2.Goodbye | None) -> None:
        """Do the bookkeeping of an end, aside: the handler's own task may be cancelled already."""
        if session.expiry is not None:
            session.expiry.cancel()
        self._registry.leave(session)
        if goodbye is not None:
            state = Presence.OFFLINE, PresenceReason.GOODBYE, goodbye.reason or "the agent said goodbye"
        else:
            found = _presence_after(session.ending)
            if found is None:
                _log.debug("session replaced")
                return
            state = found
        presence, why, detail = state
        # Losses are news; that a fleet comes and goes in order is not.
        say = _log.debug if why in _IN_ORDER else _log.info
        say("session ended", why=why.name, detail=detail)
        operation = ChangePresence(session.agent_id, session.epoch, presence, why, detail, self._now())
        self._registry.run_aside(self._record(operation))

    async def _record(self, operation: ChangePresence) -> None:
        try:
            await self._writer.submit(operation)
        except ServiceError as error:
            # The health sweep finds it: an agent that is ONLINE without a session.
            _log.warning("presence not recorded", error=error.message)

    async def drain(self) -> None:
        """Let no one in and send everyone away, spread over the drain window; waits until all are gone."""
        self._draining = True
        sessions = list(self._registry)
        window = self._policy.drain_window
        loop = asyncio.get_running_loop()
        began = loop.time()
        for position, session in enumerate(sessions):
            due = began + rules.spread(position, len(sessions), window).total_seconds()
            if (delay := due - loop.time()) > 0:
                await asyncio.sleep(delay)
            session.end(Ending(pb2.RECONNECT_REASON_DRAINING, after=window))
        await asyncio.gather(*(session.task for session in sessions), return_exceptions=True)
        await self._registry.settled()

    def _now(self) -> int:
        return to_micros(self._clock.now())


def _presence_after(ending: Ending | None) -> tuple[Presence, PresenceReason, str] | None:
    """Return what a session without a Goodbye leaves behind; None where a newer one took over."""
    if ending is None:
        return _LOST
    if not ending.reason:
        return _REVOKED if isinstance(ending.error, Unauthenticated) else _LOST
    return _PRESENCE_AT_END.get(pb2.ReconnectReason.ValueType(ending.reason))


def _facts(hello: pb2.Hello, now: int) -> SessionFacts:
    offset = hello.agent_time.ToMicroseconds() - now if hello.HasField("agent_time") else 0
    return SessionFacts(
        agent_version=hello.agent_version,
        boot_id=hello.boot_id,
        journal_id=hello.journal_id,
        shown_nonce=hello.session_nonce,
        task_kinds=tuple(hello.task_kinds),
        inventory_digest=hello.inventory_digest,
        host=HostRecord(**host_fields(hello.host)),
        clock_offset=offset,
    )


def _duration(value: timedelta) -> Duration:
    duration = Duration()
    duration.FromTimedelta(value)
    return duration
