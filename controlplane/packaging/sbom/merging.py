"""One component from what several found: by package URL, each saying who found it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from controlplane.packaging.records import Component, Requirement, Scope
from controlplane.packaging.sbom.errors import BadMetadata
from controlplane.packaging.sbom.purls import Purl, parse_purl

_SCOPES = tuple(Scope)


def merged(components: Iterable[Component]) -> list[Component]:
    """Return one component for each package URL, sorted by it."""
    found: dict[str, Component] = {}
    for component in components:
        known = found.get(component.purl)
        found[component.purl] = component if known is None else _both(known, component)
    return [found[purl] for purl in sorted(found)]


def join(ours: Sequence[Component], theirs: Sequence[Component]) -> list[Component]:
    """Return all components, each with who found it.

    Tools add qualifiers to package URLs as they like (``arch``, ``distro``, ``package-id``). A component of
    theirs is one of ours if its URL is the same, or else if all that names the package is; then ours says how
    it is written, and if we have several of that name (one for each architecture), each of them was found.
    """
    exact = {component.purl for component in ours}
    by_core: dict[tuple[str, ...], list[Component]] = {}
    for component in ours:
        if (core := _core(component)) is not None:
            by_core.setdefault(core, []).append(component)
    renamed: list[Component] = []
    for component in theirs:
        core = _core(component)
        same = [] if component.purl in exact or core is None else by_core.get(core, [])
        renamed += [_as(one, component) for one in same] or [component]
    return merged([*ours, *renamed])


def _as(ours: Component, theirs: Component) -> Component:
    return replace(theirs, purl=ours.purl, name=ours.name, ecosystem=ours.ecosystem, version=ours.version)


def _core(component: Component) -> tuple[str, ...] | None:
    try:
        purl: Purl = parse_purl(component.purl)
    except BadMetadata:
        return None
    return purl.core


def _both(first: Component, second: Component) -> Component:
    return replace(
        first,
        ecosystem=first.ecosystem or second.ecosystem,
        files=_union(first.files, second.files),
        found_by=_union(first.found_by, second.found_by),
        licences=_licences(first.licences, second.licences),
        scope=min(first.scope, second.scope, key=_SCOPES.index),
        requires=sorted({*first.requires, *second.requires}, key=_order),
        source_name=first.source_name or second.source_name,
        source_version=first.source_version or second.source_version,
        notes=_union(first.notes, second.notes),
    )


def requirements(found: Iterable[Requirement]) -> list[Requirement]:
    """Return requirements sorted, each once."""
    return sorted(set(found), key=_order)


def _licences(first: Sequence[str], second: Sequence[str]) -> Sequence[str]:
    # Tools spell one licence differently; who found a component first speaks for it.
    return first or second


def _union(first: Sequence[str], second: Sequence[str]) -> list[str]:
    return sorted({*first, *second})


def _order(requirement: Requirement) -> tuple[str, str, str, str]:
    return (requirement.name, requirement.constraint, requirement.scope.value, requirement.purl)
