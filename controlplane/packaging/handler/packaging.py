"""PackagingService of the contract, put together from its parts."""

from __future__ import annotations

import grpc
from fleetwright.v1 import packaging_service_pb2_grpc as pb2_grpc

from controlplane.packaging.handler.pipelines import PipelineCalls


class PackagingHandler(PipelineCalls):  # PackageCalls join it
    """Serves PackagingService."""

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve on ``server``."""
        pb2_grpc.add_PackagingServiceServicer_to_server(self, server)
