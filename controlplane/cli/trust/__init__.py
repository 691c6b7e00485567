"""``fleetwright trust``: the keys by which packages are released."""

from controlplane.cli.trust import drafting, installing, making, signing
from controlplane.cli.trust.app import app

__all__ = ["app", "drafting", "installing", "making", "signing"]
