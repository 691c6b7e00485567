"""TrustService of the contract."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import grpc
from fleetwright.v1 import trust_service_pb2 as pb2
from fleetwright.v1 import trust_service_pb2_grpc as pb2_grpc

from controlplane.clock import to_micros
from controlplane.packaging.offline_roles import Documents, OfflineRoles
from controlplane.transport.messages import timestamp
from controlplane.trust.tuf.standing import RoleStanding

if TYPE_CHECKING:
    # A generic class only to the type checker.
    Context = grpc.aio.ServicerContext[Any, Any]


class TrustHandler(pb2_grpc.TrustServiceServicer):
    """Serves TrustService."""

    def __init__(self, offline: OfflineRoles) -> None:
        self._offline = offline

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve on ``server``."""
        pb2_grpc.add_TrustServiceServicer_to_server(self, server)

    async def GetTrust(self, request: pb2.GetTrustRequest, context: Context) -> pb2.GetTrustResponse:
        """Say what is in force."""
        found = await self._offline.standing()
        return pb2.GetTrustResponse(
            root=found.root,
            targets=found.targets,
            key_document=found.key_document,
            roles=_messages(found.roles),
            warnings=found.warnings,
        )

    async def InstallTrust(
        self, request: pb2.InstallTrustRequest, context: Context
    ) -> pb2.InstallTrustResponse:
        """Take in what was signed offline."""
        brought = Documents(request.root or None, request.targets or None, request.key_document or None)
        changed, roles = await self._offline.install(brought, validate_only=request.validate_only)
        return pb2.InstallTrustResponse(changed=changed, roles=_messages(roles))


def _messages(roles: Iterable[RoleStanding]) -> list[pb2.TrustRole]:
    return [
        pb2.TrustRole(
            role=one.role,
            version=one.version,
            expire_time=timestamp(to_micros(one.expires)),
            threshold=one.threshold,
            key_ids=one.key_ids,
            offline=one.offline,
        )
        for one in roles
    ]
