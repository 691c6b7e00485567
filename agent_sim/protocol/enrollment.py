"""Enrolment: a join token and a fresh key in, an identity out."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Self

import grpc
from fleetwright.v1 import enrollment_service_pb2, enrollment_service_pb2_grpc, work_pb2

from agent_sim.protocol.backoff import Backoff
from agent_sim.protocol.connection import enrollment_channel
from agent_sim.protocol.errors import EnrollmentError
from agent_sim.protocol.failures import Failure, failure_of
from agent_sim.protocol.identity import (
    AgentIdentity,
    PrivateKey,
    certificate_signing_request,
    generate_key,
    identity_from_certificate,
)
from agent_sim.protocol.join_token import JoinToken
from agent_sim.protocol.root_fetch import fetch_root, split_address
from agent_sim.protocol.trusted_root import LARGEST_ROOT

DEFAULT_AGENT_PORT = 7443
"""Port of AgentService where the server names no address."""

_RETRIED = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED}
)
_FINAL_REASONS = frozenset({"TOKEN_EXHAUSTED"})


@dataclass(frozen=True, slots=True)
class Enrollment:
    """What a server gave at enrolment."""

    identity: AgentIdentity
    trusted_root: bytes
    """By which packages are to be judged from now on; empty where the server has none yet."""


class Enroller:
    """One verified connection to EnrollmentService, over which any number of agents enrol."""

    def __init__(
        self,
        address: str,
        root_pem: bytes,
        *,
        rng: random.Random,
        timeout: timedelta = timedelta(seconds=30),
        tries: int = 6,
        http_proxy: str | None = None,
    ) -> None:
        self._address = address
        self._rng = rng
        self._timeout = timeout
        self._tries = tries
        self._channel = enrollment_channel(address, root_pem, http_proxy)
        self._stub = enrollment_service_pb2_grpc.EnrollmentServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    async def enroll(
        self,
        token: JoinToken,
        agent_id: str,
        facts: work_pb2.HostFacts,
        key: PrivateKey | None = None,
    ) -> Enrollment:
        """Enrol ``agent_id`` with a fresh key, or with ``key``.

        A lost answer is asked for again with the same key, which uses the token
        once. Raises EnrollmentError, IdentityError or ValueError.
        """
        key = key or generate_key()
        request = enrollment_service_pb2.EnrollRequest(
            join_token=token.text,
            agent_id=agent_id,
            certificate_signing_request=certificate_signing_request(key, agent_id),
            host=facts,
        )
        response = await self._call(request)
        addresses = list(response.agent_addresses) or [self._default_agent_address()]
        identity = identity_from_certificate(
            agent_id, response.spiffe_id, key, response.certificate, addresses
        )
        if len(response.trusted_root) > LARGEST_ROOT:
            raise EnrollmentError(
                f"{self._address}: gave agent {agent_id} a root of {len(response.trusted_root)} bytes, "
                f"where at most {LARGEST_ROOT} are taken: report this to who runs it"
            )
        return Enrollment(identity, response.trusted_root)

    async def _call(
        self, request: enrollment_service_pb2.EnrollRequest
    ) -> enrollment_service_pb2.EnrollResponse:
        backoff = Backoff(timedelta(seconds=1), timedelta(seconds=30), timedelta(minutes=1), self._rng)
        while True:
            try:
                return await self._stub.Enroll(request, timeout=self._timeout.total_seconds())
            except grpc.aio.AioRpcError as error:
                failure = failure_of(error)
            delay = backoff.next_delay(0.0)
            retryable = failure.code in _RETRIED and failure.reason not in _FINAL_REASONS
            if not retryable or backoff.failures >= self._tries:
                raise self._refusal(request.agent_id, failure, retryable)
            await asyncio.sleep((failure.retry_after or delay).total_seconds())

    def _refusal(self, agent_id: str, failure: Failure, retryable: bool) -> EnrollmentError:
        remedy = _REMEDIES.get(failure.reason, "")
        message = f"{self._address} did not enrol agent {agent_id}: {failure.name}: {failure.message}"
        return EnrollmentError(
            f"{message}; {remedy}" if remedy else message, reason=failure.reason, retryable=retryable
        )

    def _default_agent_address(self) -> str:
        host, _ = split_address(self._address)
        return f"[{host}]:{DEFAULT_AGENT_PORT}" if ":" in host else f"{host}:{DEFAULT_AGENT_PORT}"


_REMEDIES = {
    "TOKEN_UNKNOWN": "check that the whole token was copied, and that it is of this installation",
    "AGENT_ALREADY_ENROLLED": "choose another agent id, or use a token that allows to replace it",
}


async def enroll(
    join_token: str,
    address: str,
    agent_id: str,
    facts: work_pb2.HostFacts,
    *,
    rng: random.Random,
    root_pem: bytes | None = None,
    http_proxy: str | None = None,
) -> Enrollment:
    """Enrol one agent at ``address`` (``host:port`` of EnrollmentService).

    The root is fetched by the token's digest unless ``root_pem`` brings it. Both go
    through the CONNECT proxy ``http_proxy`` where one is given.
    Raises EnrollmentError, IdentityError, or ValueError for a malformed agent id.
    """
    token = JoinToken.parse(join_token)
    root = root_pem or await fetch_root(address, token.root_digest, http_proxy=http_proxy)
    async with Enroller(address, root, rng=rng, http_proxy=http_proxy) as enroller:
        return await enroller.enroll(token, agent_id, facts)
