"""``fleetwright advisories``: what the server knows of vulnerabilities, and how it comes to know it."""

from controlplane.cli.advisories.commands import app

__all__ = ["app"]
