"""How much of a package its components explain, and what it needs besides."""

from __future__ import annotations

from controlplane.packaging.records import (
    ArtefactFacts,
    ArtefactType,
    Component,
    Inventory,
    Requirement,
    Scope,
)
from controlplane.packaging.sbom.coverage import open_requirements


def component(name: str, *requires: Requirement, scope: Scope = Scope.CONTAINED) -> Component:
    return Component("PyPI", name, "1", f"pkg:pypi/{name}@1", scope=scope, requires=requires)


def test_what_is_needed_in_no_single_version_is_named_unless_the_package_brings_it() -> None:
    own = component(
        "app",
        Requirement("open", ">=2.0", Scope.REQUIRED),
        Requirement("any", "", Scope.REQUIRED),
        Requirement("vendored", ">=1", Scope.REQUIRED),
        Requirement("pinned", "==1", Scope.REQUIRED, "pkg:pypi/pinned@1"),
        Requirement("extra", ">=1; extra == 'x'", Scope.OPTIONAL),
    )
    pinned = component("pinned", Requirement("of-another", ">=1", Scope.REQUIRED), scope=Scope.REQUIRED)
    facts = ArtefactFacts(ArtefactType.WHEEL, "app", "1")
    inventory = Inventory(facts, "a" * 64, [own, pinned, component("vendored")], [])
    assert open_requirements(inventory) == ["any", "open >=2.0"]
