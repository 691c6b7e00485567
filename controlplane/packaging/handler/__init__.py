"""PackagingService and AdvisoryService of the contract: proto in, service, proto out."""

from __future__ import annotations

from controlplane.packaging.handler.advisories import AdvisoryHandler
from controlplane.packaging.handler.packaging import PackagingHandler

__all__ = ["AdvisoryHandler", "PackagingHandler"]
