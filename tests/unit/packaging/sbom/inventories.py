"""Inventories of any content, for properties of documents."""

from __future__ import annotations

from hypothesis import strategies as st

from controlplane.packaging.records import (
    ArtefactFacts,
    ArtefactType,
    Component,
    FileEntry,
    Inventory,
    Requirement,
    Scope,
)
from controlplane.packaging.sbom.ecosystems import component_name, ecosystem_of
from controlplane.packaging.sbom.merging import merged
from controlplane.packaging.sbom.purls import make_purl

words = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=10)
names = words.filter(lambda text: bool(text.strip("/").strip("-_.")))
paths = st.lists(words.filter(lambda text: "/" not in text), min_size=1, max_size=3).map("/".join)
digests = st.binary(min_size=32, max_size=32).map(bytes.hex)
licences = st.sampled_from(["MIT", "Apache-2.0 OR MIT", "LicenseRef-own", "my own words", "GPL-2+"])


@st.composite
def files(draw: st.DrawFn) -> FileEntry:
    path = draw(paths)
    if draw(st.booleans()):
        return FileEntry(path, 0, "", 0o777, link_target=draw(paths))
    sha1 = draw(st.binary(min_size=20, max_size=20)).hex()
    return FileEntry(path, draw(st.integers(0, 2**40)), draw(digests), 0o644, sha1=sha1)


@st.composite
def components(draw: st.DrawFn, claimable: list[str]) -> Component:
    type_ = draw(st.sampled_from(["pypi", "npm", "golang", "maven", "deb", "generic"]))
    purl = make_purl(type_, draw(names), draw(st.just("") | words), namespace=draw(st.just("") | names))
    requires = draw(
        st.lists(st.builds(Requirement, words, st.just("") | words, st.sampled_from(Scope)), max_size=2)
    )
    return Component(
        ecosystem=ecosystem_of(purl),
        name=component_name(purl),
        version=purl.version,
        purl=str(purl),
        files=sorted(draw(st.sets(st.sampled_from(claimable)))) if claimable else [],
        found_by=sorted(draw(st.sets(st.sampled_from(["fleetwright", "syft", "trivy"]), min_size=1))),
        licences=draw(st.lists(licences, max_size=2, unique=True)),
        scope=draw(st.sampled_from(Scope)),
        requires=sorted(set(requires), key=lambda one: (one.name, one.constraint, one.scope.value, one.purl)),
        source_name=draw(st.just("") | words) if type_ == "deb" else "",
        notes=sorted(draw(st.sets(words, max_size=2))),
    )


@st.composite
def inventories(draw: st.DrawFn) -> Inventory:
    entries = {entry.path: entry for entry in draw(st.lists(files(), max_size=4))}
    found = draw(st.lists(components(sorted(entries)), max_size=4))
    return Inventory(
        facts=ArtefactFacts(
            draw(st.sampled_from(ArtefactType)), draw(st.just("") | words), draw(st.just("") | words)
        ),
        sha256=draw(digests),
        components=merged(found),
        files=[entries[path] for path in sorted(entries)],
        tools={"fleetwright": "0.1.0", "syft": "not run: absent"},
        problems=draw(st.lists(words, max_size=2)),
    )
