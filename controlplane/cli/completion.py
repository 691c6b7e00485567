"""What the shell offers on TAB: contexts from their file, names from the server.

A shell has no place for an error: whatever goes wrong, there is simply nothing to offer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final

from controlplane.settings import ClientSettings

PATIENCE: Final = timedelta(seconds=2)
"""Longer than that, a shell seems to hang."""

OFFERED: Final = 200

_AGENT_ID = re.compile(r"[a-z0-9-]*")
_PACKAGE_NAME = re.compile(r"[A-Za-z0-9._+-]*")


def offering(
    offer: Callable[[dict[str, Any], str], Sequence[str]],
) -> Callable[[Any, list[str], str], list[str]]:
    """Make a completion of a function of the options before the cursor and the beginning of the word."""

    def complete(ctx: Any, args: list[str], incomplete: str) -> list[str]:
        try:
            return list(offer(ctx.params, incomplete))
        except Exception:  # noqa: BLE001 - see the module: a shell shows no errors
            return []

    return complete


@offering
def contexts(params: dict[str, Any], incomplete: str) -> list[str]:
    """Offer the contexts of the file."""
    from controlplane.cli.contexts_file import Contexts

    return [name for name in Contexts.load(ClientSettings().config_file).known if name.startswith(incomplete)]


@offering
def agents(params: dict[str, Any], incomplete: str) -> list[str]:
    """Offer the agents that the server knows under such a name."""
    from fleetwright.v1.agent_registry_service_pb2 import ListAgentsRequest

    if not _AGENT_ID.fullmatch(incomplete):
        return []
    request = ListAgentsRequest(filter=f'agent_id = "{incomplete}*"' if incomplete else "", page_size=OFFERED)
    with client_of(params) as client:
        return [agent.agent_id for agent in client.agents.ListAgents(request).agents]


@offering
def packages(params: dict[str, Any], incomplete: str) -> list[str]:
    """Offer the names of packages; versions are left out, as a shell may break words at an @."""
    from fleetwright.v1.packaging_service_pb2 import ListPackagesRequest

    if not _PACKAGE_NAME.fullmatch(incomplete):
        return []
    chosen = f'package_name = "{incomplete}*"' if incomplete else ""
    with client_of(params) as client:
        found = client.packaging.ListPackages(ListPackagesRequest(filter=chosen, page_size=OFFERED)).packages
    return sorted({package.package_name for package in found})


def client_of(params: dict[str, Any]) -> Any:
    """Return a client of the server that the options before the cursor name, with little patience."""
    from controlplane.cli.connection import Client, Options

    options = Options(
        params.get("server"), params.get("identity"), params.get("context"), params.get("data_dir"), PATIENCE
    )
    return Client.of(options, ClientSettings())
