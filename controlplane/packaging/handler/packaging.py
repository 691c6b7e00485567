"""PackagingService of the contract, put together from its parts."""

from __future__ import annotations

import grpc
from fleetwright.v1 import packaging_service_pb2_grpc as pb2_grpc

from controlplane.packaging.handler.packages import PackageCalls, PackageDoors
from controlplane.packaging.handler.pipelines import PipelineCalls, PipelineDoors


class PackagingHandler(PipelineCalls, PackageCalls):
    """Serves PackagingService."""

    def __init__(self, pipelines: PipelineDoors, packages: PackageDoors) -> None:
        self._pipeline_doors = pipelines
        self._doors = packages

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve on ``server``."""
        pb2_grpc.add_PackagingServiceServicer_to_server(self, server)
