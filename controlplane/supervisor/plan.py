"""Which parts a server is made of: each has its roles, and a port of its own for health and metrics."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.settings import Role, Settings


@dataclass(frozen=True, slots=True)
class PlannedPart:
    """A part by its own name, "gateway-1"; ``health_port`` 0 lets the system choose."""

    name: str
    role: Role
    health_port: int


def plan(settings: Settings) -> list[PlannedPart]:
    """Return the parts, in the order in which they are started: who others need comes first.

    The port for health and metrics of ``api`` is that of the settings, a gateway's is its number
    above, and the worker's is the one after the last gateway's.
    """
    base, gateways = settings.health_port, settings.gateways

    def port(offset: int) -> int:
        return base + offset if base else 0

    parts = []
    if Role.WORKER in settings.roles:
        parts.append(PlannedPart("worker", Role.WORKER, port(gateways + 1)))
    if Role.API in settings.roles:
        parts.append(PlannedPart("api", Role.API, port(0)))
    if Role.GATEWAY in settings.roles:
        parts += [
            PlannedPart(f"gateway-{number}", Role.GATEWAY, port(number)) for number in range(1, gateways + 1)
        ]
    return parts
