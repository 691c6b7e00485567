"""The engine of one agent: it holds the session until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

import grpc
from fleetwright.v1 import agent_service_pb2_grpc

from agent_sim import failpoints
from agent_sim.host import Host
from agent_sim.protocol.attempts import Attempts
from agent_sim.protocol.backoff import Backoff, to_wait
from agent_sim.protocol.clock import Clock, ServerTime
from agent_sim.protocol.config import AgentConfig
from agent_sim.protocol.connection import ServerAddresses, agent_channel
from agent_sim.protocol.context import EngineContext
from agent_sim.protocol.credentials import IdentityInUse
from agent_sim.protocol.endings import Cause, Ending
from agent_sim.protocol.errors import AgentError, IdentityError, ProtocolVersionError, SessionReplacedError
from agent_sim.protocol.failures import Failure
from agent_sim.protocol.identity import AgentIdentity, IdentityStore
from agent_sim.protocol.journal import Journal
from agent_sim.protocol.observer import Observer
from agent_sim.protocol.renewal import RenewalTimer, request_certificate
from agent_sim.protocol.room import Room
from agent_sim.protocol.served import ServedFiles
from agent_sim.protocol.session import Session
from agent_sim.protocol.telemetry import Sampler

log = logging.getLogger(__name__)

MakeStub = Callable[[grpc.aio.Channel], "agent_service_pb2_grpc.AgentServiceAsyncStub"]

_GOODBYE = "stopped in order"


@dataclass(frozen=True)
class _Successor:
    """A session that took over, while the former one ends."""

    session: Session
    running: asyncio.Task[Ending]
    former_channel: grpc.aio.Channel | None


class Agent:
    """One agent on one host. Several may share a process and its event loop.

    Make it inside the event loop that runs it, and run it once. It holds one
    session, and two for the moment in which a renewed certificate takes over:
    the new one is welcomed before the old one is let go.
    """

    def __init__(
        self,
        config: AgentConfig,
        host: Host,
        journal: Journal,
        identities: IdentityStore,
        clock: Clock,
        rng: random.Random,
        observer: Observer | None = None,
        make_stub: MakeStub = agent_service_pb2_grpc.AgentServiceStub,
        served: ServedFiles | None = None,
    ) -> None:
        """Put an engine together. ``served`` is what the host fetches the server's files through."""
        observer = observer or Observer()
        self._served = served or ServedFiles()
        server_time = ServerTime(clock)
        self._room = Room(journal, observer, config.room_interval, self._fail)
        self._context = EngineContext(
            config, host, journal, clock, rng, observer, make_stub, server_time, self._room, self._fail
        )
        self._attempts = Attempts(self._context)
        self._sampler = Sampler(self._context)
        self._renewal = RenewalTimer(self._context, self._renew)
        self._backoff = Backoff(config.backoff_base, config.backoff_cap, config.stable_after, rng)
        self._identity = IdentityInUse(identities, server_time, config.identity_tries)
        self._addresses: ServerAddresses | None = None
        self._channel: grpc.aio.Channel | None = None
        self._session: Session | None = None
        self._successor: _Successor | None = None
        self._stopping = asyncio.Event()
        self._parting: str | None = None
        # A Hello of a hand-over went out whose Welcome was not seen: it may have replaced the old session.
        self._unwelcomed = False
        self._error: AgentError | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Hold the session, do the work and renew the certificate until ``stop`` is set.

        Returns after an orderly leave, with no task of its own left; the journal
        stays open and is the caller's to close. Cancelling it is the hard way
        out: nothing is said to the server or to the journal, as if the process had
        ended. Raises EnrollmentRequiredError, SessionReplacedError,
        ProtocolVersionError, IdentityError or JournalError.
        """
        identity = self._identity.begin()
        self._addresses = ServerAddresses(self._context.config.addresses or identity.agent_addresses)
        self._room.on_room = self._attempts.has_room
        self._room.begin()
        self._attempts.resume()
        stopper = asyncio.get_running_loop().create_task(self._stop_when(stop))
        try:
            await self._serve()
            # Acknowledgements that came last are still on their way into the journal.
            await self._attempts.settle()
        finally:
            stopper.cancel()
            await self._clean_up(stopper)
        if self._error is not None:
            raise self._error

    async def _stop_when(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._stopping.set()
        await self._room.stop()
        await self._attempts.stop()
        self._part(_GOODBYE)

    def _part(self, words: str) -> None:
        self._parting = words
        for session in self._sessions():
            session.end(Ending(Cause.STOPPED), words)

    def _sessions(self) -> list[Session]:
        sessions = [self._session] if self._session is not None else []
        return sessions + ([self._successor.session] if self._successor is not None else [])

    def _fail(self, error: AgentError) -> None:
        if self._error is None:
            self._error = error
        self._stopping.set()
        self._part(str(error))

    async def _serve(self) -> None:
        while not self._stopping.is_set():
            session = self._session = self._open_session()
            ending = await self._hold(session.run())
            self._served.lost()
            if self._stopping.is_set():
                return
            await self._recover(ending)

    async def _hold(self, running: Awaitable[Ending]) -> Ending:
        """Hold a session and those that supersede it, and return how the last one ended."""
        while True:
            ending = await running
            if (renewing := self._renewal.task) is not None:
                # The old session is gone, the new one is on its way: it decides.
                await self._unless_stopped(renewing)
            if self._successor is None:
                return ending
            successor, self._successor = self._successor, None
            self._session, running = successor.session, successor.running
            if successor.former_channel is not None:
                await successor.former_channel.close()

    async def _unless_stopped(self, renewing: asyncio.Task[None]) -> None:
        stopped = asyncio.get_running_loop().create_task(self._stopping.wait())
        try:
            await asyncio.wait({renewing, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()

    def _open_session(self) -> Session:
        assert self._addresses is not None  # noqa: S101 - run() has set it
        if self._channel is None:
            identity = self._identity.current
            proxy = self._context.config.http_proxy
            self._channel = agent_channel(self._addresses.current, identity, proxy)
        return Session(self._context, self._attempts, self._sampler, self._channel, self._on_welcome)

    def _on_welcome(self, session: Session) -> None:
        self._backoff.connected(self._context.clock.monotonic())
        self._served.use(session.stub)
        if session is self._session:
            self._welcomed_with(self._identity.current)

    def _welcomed_with(self, identity: AgentIdentity) -> None:
        self._unwelcomed = False
        try:
            if self._identity.accepted(identity):
                failpoints.hit("agent.after_promotion")
                self._context.observer.renewed(identity.not_after.isoformat())
        except IdentityError as error:
            # It stays the next one on disk, where a start looks first; the next Welcome promotes it.
            log.error("renewed certificate not promoted: %s", error)
            self._context.observer.failed("IDENTITY_UNUSABLE", str(error))
        self._renewal.watch(identity)

    async def _recover(self, ending: Ending) -> None:
        """Decide what follows from the end of a session, and wait until it is time. Raises AgentError."""
        log.info("session ended: %s", ending.name)
        failure = ending.failure
        if failure is not None and ending.cause is Cause.FAILED:
            self._context.observer.failed(failure.name, failure.message)
        if ending.replaced:
            self._replaced()
        if failure is not None and failure.reason == "PROTOCOL_VERSION_UNSUPPORTED":
            raise ProtocolVersionError(f"the server refused this agent's protocol version: {failure.message}")
        delay = self._backoff.next_delay(self._context.clock.monotonic())
        if failure is not None and self._identity.refused(failure) and not failure.transport_broken:
            await self._drop_channel()
        elif not ending.keeps_channel:
            await self._drop_channel()
            if ending.cause is not Cause.RECONNECT and self._addresses is not None:
                self._addresses.advance()
        await self._pause(self._wait_for(ending, delay))

    def _replaced(self) -> None:
        """Go back to Hello if this agent may have replaced itself. Raises SessionReplacedError otherwise."""
        if not self._unwelcomed:
            raise SessionReplacedError(
                "another process took over with this agent's identity: find the copy, or enrol this one anew"
            )
        # Once: the next Welcome, or refusal, makes clear who holds the session.
        self._unwelcomed = False
        self._identity.prefer_next()

    def _wait_for(self, ending: Ending, delay: timedelta) -> timedelta:
        told = ending.failure.retry_after if ending.failure is not None else None
        if ending.cause is Cause.RECONNECT:
            told = ending.after
        wait = to_wait(told, delay)
        return wait if wait is delay else timedelta(seconds=self._context.jittered(wait.total_seconds()))

    async def _pause(self, delay: timedelta) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), delay.total_seconds())

    async def _renew(self) -> bool:
        """Get the next certificate and let its session take over. True where it did."""
        session = self._session
        if session is None or not session.welcomed or self._stopping.is_set():
            return False
        identity = await request_certificate(self._context, session.stub, self._identity.current)
        if identity is None:
            return False
        self._identity.store_next(identity)
        failpoints.hit("agent.after_certificate")
        return await self._hand_over(session, identity)

    async def _hand_over(self, old: Session, identity: AgentIdentity) -> bool:
        """Make before break: the new session is welcomed before the old one is let go."""
        assert self._addresses is not None  # noqa: S101 - run() has set it
        channel = agent_channel(self._addresses.current, identity, self._context.config.http_proxy)
        welcome = asyncio.Event()
        new = Session(self._context, self._attempts, self._sampler, channel, lambda _: welcome.set())
        self._unwelcomed = True
        running = asyncio.get_running_loop().create_task(new.run())
        waiter = asyncio.get_running_loop().create_task(welcome.wait())
        try:
            await asyncio.wait({running, waiter}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await channel.close()
            raise
        finally:
            waiter.cancel()
        if not welcome.is_set():
            await channel.close()
            self._not_welcomed(running.result().failure)
            return False
        former, self._channel = self._channel, channel
        self._served.use(new.stub)
        self._successor = _Successor(new, running, former)
        self._welcomed_with(identity)
        old.end(Ending(Cause.SUPERSEDED), None)
        if self._parting is not None:
            # The order to stop went to the old session alone.
            new.end(Ending(Cause.STOPPED), self._parting)
        return True

    def _not_welcomed(self, failure: Failure | None) -> None:
        if failure is not None and failure.refuses_identity:
            self._unwelcomed = False
            self._identity.discard_next()

    async def _drop_channel(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def _clean_up(self, stopper: asyncio.Task[None]) -> None:
        await asyncio.gather(stopper, return_exceptions=True)
        await self._renewal.stop()
        await self._sampler.stop()
        if self._successor is not None:
            self._successor.running.cancel()
            await asyncio.gather(self._successor.running, return_exceptions=True)
            if self._successor.former_channel is not None:
                await self._successor.former_channel.close()
        await self._room.stop()
        await self._attempts.abandon()
        await self._drop_channel()
