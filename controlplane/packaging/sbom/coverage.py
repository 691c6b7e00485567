"""How much of a package its components explain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.packaging.records import ArtefactType, Inventory, Scope
from controlplane.packaging.sbom.errors import NoComponents

MAX_UNCLAIMED = 1_000
"""Unclaimed files that are listed; how many there are is said in full."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Files claimed by a component, of all files, links among them."""

    files: int
    claimed: int
    unclaimed: Sequence[str]
    """The first of the files that no component claims, sorted; at most ``MAX_UNCLAIMED``."""

    @property
    def share(self) -> float:
        """Claimed files of all, from 0 to 1; 1 where there are none."""
        return self.claimed / self.files if self.files else 1.0


def coverage_of(inventory: Inventory) -> Coverage:
    """Return how many of the files of a package its components claim."""
    claims = {
        path
        for component in inventory.components
        if component.scope is Scope.CONTAINED
        for path in component.files
    }
    unclaimed = sorted(entry.path for entry in inventory.files if entry.path not in claims)
    total = len(inventory.files)
    return Coverage(files=total, claimed=total - len(unclaimed), unclaimed=unclaimed[:MAX_UNCLAIMED])


def open_requirements(inventory: Inventory) -> list[str]:
    """Return what a package needs at run time without saying of which version, and does not bring; sorted.

    Which version will be there is decided where it is installed: nobody can scan it here.
    """
    there = {(one.ecosystem, one.name) for one in inventory.components}
    return sorted(
        {
            f"{need.name} {need.constraint}".strip()
            for component in inventory.components
            if component.scope is Scope.CONTAINED
            for need in component.requires
            if need.scope is Scope.REQUIRED
            and not need.purl
            and (component.ecosystem, need.name) not in there
        }
    )


def require_components(inventory: Inventory) -> None:
    """Refuse an inventory in which nothing was found.

    An archive may hold nothing that names itself; its coverage of 0 says so. Everything else names at
    least itself.

    Raises:
        NoComponents: no component is contained in an artefact of a type that names itself.
    """
    if inventory.facts.type is ArtefactType.ARCHIVE:
        return
    if any(component.scope is Scope.CONTAINED for component in inventory.components):
        return
    kind = inventory.facts.type.value
    raise NoComponents(
        inventory.facts.name or kind,
        f"no component was found in this {kind}, not even itself: that is no clean result; "
        "look whether its metadata is where the format wants it",
    )
