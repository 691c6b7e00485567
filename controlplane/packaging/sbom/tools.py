"""What looked at a package: name and version of each tool, or why it did not look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from controlplane.packaging.records import Component

NOT_RUN = "not run: "
"""How the statement of a tool begins that found nothing because it did not look."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What one tool said of a package."""

    tool: str
    version: str
    """With the digest of its program; or ``NOT_RUN`` and why."""
    components: Sequence[Component] = ()


def ran(tools: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return name and version of the tools that looked, sorted."""
    return [(tool, said) for tool, said in sorted(tools.items()) if not said.startswith(NOT_RUN)]


@cache
def own_version() -> str:
    """Return the version of this program."""
    try:
        return version("fleetwright-controlplane")
    except PackageNotFoundError:
        return "unknown"
