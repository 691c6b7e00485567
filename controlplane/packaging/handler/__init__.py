"""PackagingService, AdvisoryService and TrustService of the contract: proto in, service, proto out."""

from __future__ import annotations

from controlplane.packaging.handler.advisories import AdvisoryHandler
from controlplane.packaging.handler.packages import PackageDoors
from controlplane.packaging.handler.packaging import PackagingHandler
from controlplane.packaging.handler.pipelines import PipelineDoors
from controlplane.packaging.handler.trust import TrustHandler

__all__ = ["AdvisoryHandler", "PackageDoors", "PackagingHandler", "PipelineDoors", "TrustHandler"]
