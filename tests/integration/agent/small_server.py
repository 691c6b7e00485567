"""A server of a hundred lines, which knows one agent: for tests of the agent's program."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import grpc.aio
import protovalidate
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from fleetwright.v1 import (
    agent_service_pb2,
    agent_service_pb2_grpc,
    enrollment_service_pb2,
    enrollment_service_pb2_grpc,
    work_pb2,
)

from agent_sim.host import FileUnknownError
from certs.authority import DEFAULT_HOSTS, Root, issue_server, make_root
from tests.support.install_world import ServedRepository

Result = tuple[work_pb2.AttemptResult, dict[int, bytes]]


class SmallServer(
    agent_service_pb2_grpc.AgentServiceServicer, enrollment_service_pb2_grpc.EnrollmentServiceServicer
):
    """Enrols whoever asks, hands out what ``give`` is given, and keeps what comes back."""

    def __init__(self) -> None:
        now = datetime.now(UTC)
        self.root = make_root("Test agents", now=now)
        self.hellos: list[agent_service_pb2.Hello] = []
        self.tokens: list[str] = []
        self.trusted_root = b""
        self.points: list[work_pb2.TelemetryPoint] = []
        self.measured = asyncio.Event()
        self.goodbye: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._results: dict[str, asyncio.Future[Result]] = {}
        self._given: dict[str, agent_service_pb2.Assignment] = {}
        self._streams: set[asyncio.Queue[agent_service_pb2.TasksResponse | None]] = set()
        self._beating: asyncio.Queue[agent_service_pb2.HeartbeatResponse] = asyncio.Queue()
        self._outputs: dict[str, dict[int, bytes]] = {}
        self.progress: list[agent_service_pb2.AttemptProgress] = []
        self.files = ServedRepository()
        self.cut_after: list[int] = []
        """After how many pieces each of the next downloads is aborted, as by a server that goes away."""

    @property
    def token(self) -> str:
        digest = hashlib.sha256(self.root.certificate.public_bytes(serialization.Encoding.DER)).digest()
        secret = base64.urlsafe_b64encode(bytes(range(32))).decode().rstrip("=")
        return f"fwt1.abcdefghijklmnop.{secret}." + base64.urlsafe_b64encode(digest).decode().rstrip("=")

    async def give(self, **spec: object) -> Result:
        """Hand a task to the agent and return its result and its outputs."""
        attempt = f"attempt-{len(self._results) + 1}"
        self._results[attempt] = asyncio.get_running_loop().create_future()
        task = work_pb2.TaskSpec(**spec)  # type: ignore[arg-type] # field names
        assignment = agent_service_pb2.Assignment(
            attempt_id=attempt, task=f"tasks/{attempt}", number=1, spec=task
        )
        assignment.run_limit.FromTimedelta(timedelta(minutes=5))
        self._given[attempt] = assignment
        for answers in self._streams:
            answers.put_nowait(agent_service_pb2.TasksResponse(assignment=assignment))
        self._announce()
        async with asyncio.timeout(60):
            return await self._results[attempt]

    def _announce(self) -> None:
        work = agent_service_pb2.WorkAvailable()
        self._beating.put_nowait(agent_service_pb2.HeartbeatResponse(work_available=work))

    async def Enroll(
        self, request: enrollment_service_pb2.EnrollRequest, context: object
    ) -> enrollment_service_pb2.EnrollResponse:
        self.tokens.append(request.join_token)
        spiffe = f"spiffe://fleetwright.local/agent/{request.agent_id}"
        asked = x509.load_der_x509_csr(request.certificate_signing_request)
        issued = _issue(self.root, asked, spiffe)
        return enrollment_service_pb2.EnrollResponse(
            spiffe_id=spiffe, certificate=issued, trusted_root=self.trusted_root
        )

    async def Heartbeat(
        self, requests: AsyncIterator[agent_service_pb2.HeartbeatRequest], context: object
    ) -> AsyncIterator[agent_service_pb2.HeartbeatResponse]:
        first = await anext(aiter(requests))
        self.hellos.append(first.hello)
        welcome = agent_service_pb2.Welcome(session_epoch=len(self.hellos), next_nonce=bytes(16))
        welcome.heartbeat_interval.FromSeconds(30)
        welcome.telemetry_interval.FromTimedelta(timedelta(seconds=1))
        yield agent_service_pb2.HeartbeatResponse(welcome=welcome)
        # A session of its own: what an agent that was killed did not hear is not lost with it.
        beating = self._beating = asyncio.Queue()
        if self._given:
            self._announce()
        listener = asyncio.create_task(self._listen(requests, beating))
        try:
            while not listener.done():
                answer = asyncio.ensure_future(beating.get())
                await asyncio.wait((answer, listener), return_when=asyncio.FIRST_COMPLETED)
                if answer.done():
                    yield answer.result()
                else:
                    answer.cancel()
        finally:
            listener.cancel()

    async def _listen(
        self,
        requests: AsyncIterator[agent_service_pb2.HeartbeatRequest],
        beating: asyncio.Queue[agent_service_pb2.HeartbeatResponse],
    ) -> None:
        async for request in requests:
            if request.HasField("goodbye"):
                self.goodbye.set_result(request.goodbye.reason)
            if request.HasField("beat"):
                answer = agent_service_pb2.BeatAcknowledged(sequence=request.beat.sequence)
                beating.put_nowait(agent_service_pb2.HeartbeatResponse(beat_acknowledged=answer))

    async def Tasks(
        self, requests: AsyncIterator[agent_service_pb2.TasksRequest], context: object
    ) -> AsyncIterator[agent_service_pb2.TasksResponse]:
        answers: asyncio.Queue[agent_service_pb2.TasksResponse | None] = asyncio.Queue()
        listener = asyncio.create_task(self._work(requests, answers))
        try:
            while (answer := await answers.get()) is not None:
                yield answer
        finally:
            listener.cancel()
            self._streams.discard(answers)
            if self._given:  # Handed to a stream that was closing: the agent takes an attempt once.
                self._announce()

    async def _work(
        self,
        requests: AsyncIterator[agent_service_pb2.TasksRequest],
        answers: asyncio.Queue[agent_service_pb2.TasksResponse | None],
    ) -> None:
        opened = agent_service_pb2.TasksOpened()
        opened.linger.FromTimedelta(timedelta(milliseconds=50))
        async for request in requests:
            kind = request.WhichOneof("message")
            if kind == "open":
                answers.put_nowait(agent_service_pb2.TasksResponse(opened=opened))
                for assignment in self._given.values():
                    answers.put_nowait(agent_service_pb2.TasksResponse(assignment=assignment))
                self._streams.add(answers)
            elif kind == "chunk":
                chunk = request.chunk
                outputs = self._outputs.setdefault(chunk.attempt_id, {})
                outputs[chunk.stream] = outputs.get(chunk.stream, b"")[: chunk.offset] + chunk.data
            elif kind == "progress":
                self.progress.append(request.progress)
            elif kind == "finished":
                attempt = request.finished.attempt_id
                done = agent_service_pb2.ResultAcknowledged(attempt_id=attempt)
                done.disposition = agent_service_pb2.RESULT_DISPOSITION_COMMITTED
                answers.put_nowait(agent_service_pb2.TasksResponse(result_acknowledged=done))
                if self._given.pop(attempt, None) is not None:
                    self._results[attempt].set_result(
                        (request.finished.result, self._outputs.get(attempt, {}))
                    )
        answers.put_nowait(None)

    async def RenewCertificate(
        self, request: agent_service_pb2.RenewCertificateRequest, context: object
    ) -> agent_service_pb2.RenewCertificateResponse:
        asked = x509.load_der_x509_csr(request.certificate_signing_request)
        issued = _issue(self.root, asked, "spiffe://fleetwright.local/agent/web-1")
        return agent_service_pb2.RenewCertificateResponse(certificate=issued)

    async def FetchMetadata(
        self,
        request: agent_service_pb2.FetchMetadataRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> agent_service_pb2.FetchMetadataResponse:
        protovalidate.validate(request)
        try:
            content = await self.files.metadata(request.file_name)
        except FileUnknownError as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        return agent_service_pb2.FetchMetadataResponse(content=content)

    async def DownloadArtefact(
        self,
        request: agent_service_pb2.DownloadArtefactRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[agent_service_pb2.DownloadArtefactResponse]:
        protovalidate.validate(request)
        pieces = self.cut_after.pop(0) if self.cut_after else -1
        async for piece in self.files.artefact(request.sha256, request.offset):
            if pieces == 0:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
            pieces -= 1
            yield agent_service_pb2.DownloadArtefactResponse(
                offset=piece.offset, data=piece.data, total_bytes=piece.total_bytes
            )

    async def Telemetry(
        self, requests: AsyncIterator[agent_service_pb2.TelemetryRequest], context: object
    ) -> AsyncIterator[agent_service_pb2.TelemetryResponse]:
        async for request in requests:
            if request.HasField("open"):
                opened = agent_service_pb2.TelemetryOpened(last_sequence=len(self.points), budget=1000)
                opened.linger.FromTimedelta(timedelta(milliseconds=50))
                yield agent_service_pb2.TelemetryResponse(opened=opened)
            else:
                batch = request.batch
                last = batch.first_sequence + len(batch.points) - 1
                self.points += batch.points
                self.measured.set()
                done = agent_service_pb2.TelemetryAcknowledged(last_sequence=last, budget=1000)
                yield agent_service_pb2.TelemetryResponse(acknowledged=done)


def _issue(
    root: Root, asked: x509.CertificateSigningRequest, spiffe: str
) -> enrollment_service_pb2.IssuedCertificate:
    now = datetime.now(UTC).replace(microsecond=0)
    life = timedelta(hours=24)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(asked.subject)
        .issuer_name(root.certificate.subject)
        .public_key(asked.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + life)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe)]), critical=False)
        .sign(root.key, hashes.SHA256())
    )
    der = serialization.Encoding.DER
    issued = enrollment_service_pb2.IssuedCertificate(
        chain=[certificate.public_bytes(der)], trust_bundle=[root.certificate.public_bytes(der)]
    )
    issued.not_before.FromDatetime(now)
    issued.not_after.FromDatetime(now + life)
    issued.renew_after.FromDatetime(now + life / 2)
    return issued


@asynccontextmanager
async def small_server() -> AsyncIterator[tuple[SmallServer, int, int]]:
    """Serve on 127.0.0.1; gives the server, its enrolment port and its port for agents."""
    service = SmallServer()
    own = issue_server(service.root, DEFAULT_HOSTS, now=datetime.now(UTC))
    pair = [(own.key_pem, own.chain_pem)]
    enrolling, agents = grpc.aio.server(), grpc.aio.server()
    enrollment_service_pb2_grpc.add_EnrollmentServiceServicer_to_server(service, enrolling)
    agent_service_pb2_grpc.add_AgentServiceServicer_to_server(service, agents)
    enrolment_port = enrolling.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(pair))
    agent_port = agents.add_secure_port(
        "127.0.0.1:0",
        grpc.ssl_server_credentials(pair, root_certificates=service.root.pem, require_client_auth=True),
    )
    await enrolling.start()
    await agents.start()
    try:
        yield service, enrolment_port, agent_port
    finally:
        await enrolling.stop(None)
        await agents.stop(None)
