"""gRPC of enrolment, of its tokens and of administrators' identities: proto in, service, proto out."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Protocol

from fleetwright.v1 import (
    enrollment_service_pb2,
    enrollment_service_pb2_grpc,
    enrollment_token_service_pb2,
    enrollment_token_service_pb2_grpc,
    identity_service_pb2,
    identity_service_pb2_grpc,
)
from google.protobuf.duration_pb2 import Duration
from grpc.aio import Server, ServicerContext

from controlplane.agents.service import HostRecord
from controlplane.callers import IdentityKind
from controlplane.clock import Clock, to_micros
from controlplane.identity.administrators import Administrators
from controlplane.identity.records import IdentityRecord, TokenRecord
from controlplane.identity.service import IdentityService
from controlplane.identity.tokens import EnrollmentTokens
from controlplane.transport.context import current_caller
from controlplane.transport.messages import host_fields, issued_certificate, timestamp

_COLLECTION = "enrollmentTokens/"
_IDENTITIES = "identities/"

_KINDS = {
    identity_service_pb2.ADMIN_ROLE_OPERATOR: IdentityKind.OPERATOR,
    identity_service_pb2.ADMIN_ROLE_INTEGRATOR: IdentityKind.INTEGRATOR,
}
_ROLES = {kind: role for role, kind in _KINDS.items()}

Context = ServicerContext[Any, Any]


class EnrollmentServicer(enrollment_service_pb2_grpc.EnrollmentServiceServicer):
    """Turns join tokens into identities."""

    def __init__(self, service: IdentityService) -> None:
        self._service = service

    def add_to(self, server: Server) -> None:
        """Serve on ``server``."""
        enrollment_service_pb2_grpc.add_EnrollmentServiceServicer_to_server(self, server)

    async def Enroll(
        self, request: enrollment_service_pb2.EnrollRequest, context: Context
    ) -> enrollment_service_pb2.EnrollResponse:
        """Register an agent and issue its first certificate."""
        enrolled = await self._service.enroll(
            request.join_token,
            request.agent_id,
            request.certificate_signing_request,
            HostRecord(**host_fields(request.host)),
        )
        return enrollment_service_pb2.EnrollResponse(
            spiffe_id=enrolled.spiffe_id,
            certificate=issued_certificate(enrolled.certificate),
            agent_addresses=enrolled.agent_addresses,
            trusted_root=enrolled.trusted_root,
        )


class EnrollmentTokenServicer(enrollment_token_service_pb2_grpc.EnrollmentTokenServiceServicer):
    """Lets administrators say who may enrol."""

    def __init__(self, tokens: EnrollmentTokens, clock: Clock) -> None:
        self._tokens = tokens
        self._clock = clock

    def add_to(self, server: Server) -> None:
        """Serve on ``server``."""
        enrollment_token_service_pb2_grpc.add_EnrollmentTokenServiceServicer_to_server(self, server)

    async def CreateEnrollmentToken(
        self, request: enrollment_token_service_pb2.CreateEnrollmentTokenRequest, context: Context
    ) -> enrollment_token_service_pb2.CreateEnrollmentTokenResponse:
        """Make a token and show its secret this once."""
        made = await self._tokens.create(
            current_caller(),
            description=request.description,
            ttl=_ttl(request),
            max_uses=request.max_uses,
            allow_reenrollment=request.allow_reenrollment,
            labels=dict(request.labels),
        )
        return enrollment_token_service_pb2.CreateEnrollmentTokenResponse(
            token=self._token(made.token), join_token=made.join_token
        )

    async def ListEnrollmentTokens(
        self, request: enrollment_token_service_pb2.ListEnrollmentTokensRequest, context: Context
    ) -> enrollment_token_service_pb2.ListEnrollmentTokensResponse:
        """Read a page of tokens, newest first."""
        page = await self._tokens.list(page_size=request.page_size, page_token=request.page_token)
        return enrollment_token_service_pb2.ListEnrollmentTokensResponse(
            tokens=[self._token(token) for token in page.tokens], next_page_token=page.next_page_token
        )

    async def RevokeEnrollmentToken(
        self, request: enrollment_token_service_pb2.RevokeEnrollmentTokenRequest, context: Context
    ) -> enrollment_token_service_pb2.RevokeEnrollmentTokenResponse:
        """End a token at once."""
        token = await self._tokens.revoke(current_caller(), request.name.removeprefix(_COLLECTION))
        return enrollment_token_service_pb2.RevokeEnrollmentTokenResponse(token=self._token(token))

    def _token(self, token: TokenRecord) -> enrollment_token_service_pb2.EnrollmentToken:
        state = token.state(to_micros(self._clock.now()))
        return enrollment_token_service_pb2.EnrollmentToken(
            name=f"{_COLLECTION}{token.token_id}",
            description=token.description,
            state=enrollment_token_service_pb2.EnrollmentTokenState.ValueType(state.value),
            max_uses=token.max_uses,
            use_count=token.use_count,
            allow_reenrollment=token.allow_reenrollment,
            labels=token.labels,
            creator=token.creator,
            create_time=timestamp(token.create_time),
            expire_time=timestamp(token.expire_time),
            revoke_time=timestamp(token.revoke_time),
        )


class IdentityServicer(identity_service_pb2_grpc.IdentityServiceServicer):
    """Lets operators say who else may call the admin port."""

    def __init__(self, administrators: Administrators, clock: Clock) -> None:
        self._administrators = administrators
        self._clock = clock

    def add_to(self, server: Server) -> None:
        """Serve on ``server``."""
        identity_service_pb2_grpc.add_IdentityServiceServicer_to_server(self, server)

    async def IssueIdentity(
        self, request: identity_service_pb2.IssueIdentityRequest, context: Context
    ) -> identity_service_pb2.IssueIdentityResponse:
        """Sign the key of an operator or integrator."""
        made = await self._administrators.issue(
            current_caller(),
            _KINDS[request.role],
            request.display_name,
            request.certificate_signing_request,
            _ttl(request),
        )
        return identity_service_pb2.IssueIdentityResponse(
            identity=self._identity(made.identity), certificate=made.certificate_pem, root=made.root_pem
        )

    async def ListIdentities(
        self, request: identity_service_pb2.ListIdentitiesRequest, context: Context
    ) -> identity_service_pb2.ListIdentitiesResponse:
        """Read a page of identities, newest first."""
        page = await self._administrators.list(page_size=request.page_size, page_token=request.page_token)
        return identity_service_pb2.ListIdentitiesResponse(
            identities=[self._identity(identity) for identity in page.identities],
            next_page_token=page.next_page_token,
        )

    async def RevokeIdentity(
        self, request: identity_service_pb2.RevokeIdentityRequest, context: Context
    ) -> identity_service_pb2.RevokeIdentityResponse:
        """End an identity at once."""
        serial = request.name.removeprefix(_IDENTITIES)
        identity = await self._administrators.revoke(current_caller(), serial)
        return identity_service_pb2.RevokeIdentityResponse(identity=self._identity(identity))

    def _identity(self, identity: IdentityRecord) -> identity_service_pb2.Identity:
        state = identity.state(to_micros(self._clock.now()))
        return identity_service_pb2.Identity(
            name=f"{_IDENTITIES}{identity.serial}",
            spiffe_id=self._administrators.spiffe_id(identity.kind, identity.name),
            role=_ROLES[identity.kind],
            display_name=identity.name,
            state=identity_service_pb2.IdentityState.ValueType(state.value),
            creator=identity.creator,
            create_time=timestamp(identity.create_time),
            expire_time=timestamp(identity.expire_time),
            revoke_time=timestamp(identity.revoke_time),
        )


class _WithTtl(Protocol):
    @property
    def ttl(self) -> Duration: ...

    def HasField(self, field_name: Any, /) -> bool: ...


def _ttl(request: _WithTtl) -> timedelta | None:
    if not request.HasField("ttl"):
        return None
    return timedelta(seconds=request.ttl.seconds, microseconds=request.ttl.nanos // 1_000)
