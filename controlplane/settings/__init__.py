"""The settings of a server process: frozen, and the only reader of the environment.

Each field is the environment variable of its name with the prefix ``FLEETWRIGHT_``,
for example ``FLEETWRIGHT_AGENTS_PORT=7443``; what the command line says is passed to
the constructor and wins. Durations are a number of seconds, or one with a unit of ms, s, m,
h or d (``90``, ``250ms``, ``24h``), or ISO 8601 (``PT1M30S``).
"""

from __future__ import annotations

from controlplane.settings.client import ClientSettings
from controlplane.settings.environment import explain, notify_socket, silence_grpc, unknown_variables
from controlplane.settings.kinds import Duration, Role
from controlplane.settings.server import Settings

__all__ = [
    "ClientSettings",
    "Duration",
    "Role",
    "Settings",
    "explain",
    "notify_socket",
    "silence_grpc",
    "unknown_variables",
]
