"""AdvisoryService of the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc
from fleetwright.v1 import advisory_service_pb2 as pb2
from fleetwright.v1 import advisory_service_pb2_grpc as pb2_grpc

from controlplane.clock import from_micros
from controlplane.errors import InvalidArgument
from controlplane.packaging.advisory_imports import AdvisoryImports, Known, Opening
from controlplane.transport.messages import timestamp

if TYPE_CHECKING:
    # A generic class only to the type checker.
    Context = grpc.aio.ServicerContext[Any, Any]


class AdvisoryHandler(pb2_grpc.AdvisoryServiceServicer):
    """Serves AdvisoryService."""

    def __init__(self, imports: AdvisoryImports) -> None:
        self._imports = imports

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve on ``server``."""
        pb2_grpc.add_AdvisoryServiceServicer_to_server(self, server)

    async def ImportAdvisories(
        self, request_iterator: AsyncIterator[pb2.ImportAdvisoriesRequest], context: Context
    ) -> pb2.ImportAdvisoriesResponse:
        """Take an export in."""
        opening = await _opening(request_iterator)
        taken = await self._imports.take(opening, _pieces(request_iterator))
        return pb2.ImportAdvisoriesResponse(
            ecosystems=[_message(one) for one in taken.ecosystems], changed_count=taken.changed_count
        )

    async def GetAdvisoryStatus(
        self, request: pb2.GetAdvisoryStatusRequest, context: Context
    ) -> pb2.GetAdvisoryStatusResponse:
        """Say what is known."""
        return pb2.GetAdvisoryStatusResponse(
            ecosystems=[_message(one) for one in await self._imports.status()]
        )


async def _opening(requests: AsyncIterator[pb2.ImportAdvisoriesRequest]) -> Opening:
    first = await anext(aiter(requests), None)
    if first is None or not first.HasField("open"):
        raise InvalidArgument("PROTOCOL_VIOLATION", "open: the first message of an import announces it")
    opened = first.open
    exported = opened.exported_time.ToMicroseconds() if opened.HasField("exported_time") else None
    return Opening(
        size=opened.size_bytes,
        sha256=opened.sha256,
        allow_older=opened.allow_older,
        ecosystem=opened.ecosystem,
        exported=None if exported is None else from_micros(exported),
    )


async def _pieces(requests: AsyncIterator[pb2.ImportAdvisoriesRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        if request.HasField("open"):
            raise InvalidArgument("PROTOCOL_VIOLATION", "open: comes once, as the first message")
        yield request.data


def _message(known: Known) -> pb2.AdvisoryEcosystem:
    standing = known.standing
    return pb2.AdvisoryEcosystem(
        ecosystem=standing.ecosystem,
        import_version=standing.version,
        sha256=standing.digest,
        advisory_count=standing.records - standing.withdrawn,
        withdrawn_count=standing.withdrawn,
        newest_time=timestamp(standing.newest_modified),
        import_time=timestamp(standing.import_time),
        stale=known.stale,
    )
