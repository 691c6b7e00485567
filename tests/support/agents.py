"""An agent that speaks the contract by hand, and so can break it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import grpc
from fleetwright.v1 import agent_service_pb2 as pb2
from fleetwright.v1 import agent_service_pb2_grpc as pb2_grpc
from fleetwright.v1 import work_pb2

from agent_sim.protocol.connection import agent_channel
from agent_sim.protocol.identity import (
    AgentIdentity,
    certificate_signing_request,
    generate_key,
    identity_from_certificate,
)
from tests.support.streams import Stream


@dataclass
class RawAgent:
    """An enrolled agent without an engine: every message is the test's."""

    identity: AgentIdentity
    address: str
    journal_id: str = "journal-1"
    nonce: bytes = b""
    channels: list[grpc.aio.Channel] = field(default_factory=list)

    @property
    def agent_id(self) -> str:
        """Its id."""
        return self.identity.agent_id

    @property
    def name(self) -> str:
        """Its resource name."""
        return f"agents/{self.agent_id}"

    def connect(self) -> Any:
        """Open a connection of its own with the certificate in use, and return the stub on it."""
        channel = agent_channel(self.address, self.identity)
        self.channels.append(channel)
        return pb2_grpc.AgentServiceStub(channel)

    def heartbeat(self, stub: Any = None) -> Stream:
        """Open a Heartbeat stream and say nothing."""
        return Stream((stub or self.connect()).Heartbeat(), pb2.HeartbeatRequest)

    def hello(self, **changes: Any) -> pb2.Hello:
        """Return a good Hello with ``changes``."""
        fields: dict[str, Any] = {
            "protocol_version": 1,
            "agent_version": "raw",
            "boot_id": "boot-1",
            "journal_id": self.journal_id,
            "session_nonce": self.nonce,
            "task_kinds": ["echo", "script"],
            "host": work_pb2.HostFacts(hostname=self.agent_id, os_family="linux"),
        }
        return pb2.Hello(**(fields | changes))

    async def come(self, **changes: Any) -> RawSession:
        """Connect and open a session."""
        stub = self.connect()
        stream = self.heartbeat(stub)
        await stream.send(hello=self.hello(**changes))
        welcome = await stream.expect("welcome")
        self.nonce = welcome.next_nonce
        return RawSession(self, stub, stream, welcome)

    async def renew(self, stub: Any) -> AgentIdentity:
        """Ask for the next certificate over ``stub``; the one in use stays the same."""
        key, own = generate_key(), self.identity
        request = pb2.RenewCertificateRequest(
            certificate_signing_request=certificate_signing_request(key, own.agent_id)
        )
        issued = (await stub.RenewCertificate(request)).certificate
        return identity_from_certificate(own.agent_id, own.spiffe_id, key, issued, own.agent_addresses)

    async def close(self) -> None:
        """Close every connection, which to the server is a loss."""
        for channel in self.channels:
            await channel.close()


@dataclass
class RawSession:
    """A session that was welcomed."""

    agent: RawAgent
    stub: Any
    stream: Stream
    welcome: pb2.Welcome
    beats: int = 0

    @property
    def epoch(self) -> int:
        """Its session epoch."""
        return int(self.welcome.session_epoch)

    async def beat(self) -> None:
        """Send the next beat and wait for its answer."""
        self.beats += 1
        await self.stream.send(beat=pb2.Beat(sequence=self.beats))
        assert (await self.stream.until("beat_acknowledged")).sequence == self.beats

    async def goodbye(self, reason: str = "") -> None:
        """Leave in order."""
        await self.stream.send(goodbye=pb2.Goodbye(reason=reason))
        await self.stream.half_close()
        code, _ = await self.stream.ended()
        assert code is grpc.StatusCode.OK

    def tasks_stream(self) -> Stream:
        """Open a Tasks stream and say nothing."""
        return Stream(self.stub.Tasks(), pb2.TasksRequest)

    async def tasks(
        self, *, allowed: int = 8, journal: Iterable[tuple[str, bool]] = (), epoch: int | None = None
    ) -> Stream:
        """Open a Tasks stream with ``allowed`` credits and a journal of (attempt id, finished)."""
        stream = self.tasks_stream()
        entries = [pb2.JournalEntry(attempt_id=attempt, finished=finished) for attempt, finished in journal]
        await stream.send(
            open=pb2.TasksOpen(session_epoch=epoch or self.epoch, credits=allowed, journal=entries)
        )
        return stream

    async def telemetry(self, *, epoch: int | None = None, previous: int = 0) -> Stream:
        """Open a Telemetry stream."""
        stream = Stream(self.stub.Telemetry(), pb2.TelemetryRequest)
        opening = pb2.TelemetryOpen(session_epoch=epoch or self.epoch, previous_session_epoch=previous)
        await stream.send(open=opening)
        return stream

    def batch(self, first: int, values: Sequence[float], dropped: int = 0) -> pb2.TelemetryBatch:
        """Return a batch of this session's journal."""
        return pb2.TelemetryBatch(
            journal_id=self.agent.journal_id,
            first_sequence=first,
            dropped=dropped,
            points=[point(value) for value in values],
        )


def succeeded(attempt_id: str, payload: bytes = b"", stdout_bytes: int = 0) -> pb2.AttemptFinished:
    """Return the good end of an echo."""
    result = work_pb2.AttemptResult(
        outcome=work_pb2.OUTCOME_SUCCEEDED,
        echo=work_pb2.EchoResult(payload=payload),
        stdout_bytes=stdout_bytes,
    )
    return pb2.AttemptFinished(attempt_id=attempt_id, result=result)


def accepted(attempt_id: str) -> pb2.AttemptAccepted:
    """Return what says that an attempt is journalled."""
    return pb2.AttemptAccepted(attempt_id=attempt_id)


def point(value: float, metric: str = "test.value_count") -> work_pb2.TelemetryPoint:
    """Return a point of now."""
    made = work_pb2.TelemetryPoint(metric=metric, value=value)
    made.time.FromDatetime(datetime.now(UTC))
    return made
