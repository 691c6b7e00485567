"""``fleetwright packages``: artefacts into the factory, packages out of it, to agents and to auditors."""

from controlplane.cli.packages import (
    building,
    deploying,
    exceptions,
    fetching,
    pipelines,
    reading,
    uploading,
    verifying,
)
from controlplane.cli.packages.app import app

__all__ = [
    "app",
    "building",
    "deploying",
    "exceptions",
    "fetching",
    "pipelines",
    "reading",
    "uploading",
    "verifying",
]
