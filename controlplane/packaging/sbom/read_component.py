"""One component as a document lists it, checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from controlplane.packaging.records import Component, Requirement, Scope
from controlplane.packaging.sbom.ecosystems import component_name, ecosystem_of
from controlplane.packaging.sbom.errors import BadMetadata
from controlplane.packaging.sbom.found import MAX_LICENCES
from controlplane.packaging.sbom.licences import own_words
from controlplane.packaging.sbom.merging import requirements
from controlplane.packaging.sbom.purls import Purl, make_purl, parse_purl
from controlplane.packaging.sbom.text import clean, required, shown

NO_PURL = "its document gives no package URL for it: a scan does not cover it"


def listed(
    place: str,
    *,
    purl: object,
    name: str,
    version: object,
    files: Iterable[str],
    licences: Sequence[str],
    scope: Scope,
    ecosystem: str = "",
    found_by: Iterable[str] = (),
    requires: Iterable[Requirement] = (),
    source: tuple[str, str] = ("", ""),
    notes: Iterable[str] = (),
) -> Component:
    """Return a component; ``place`` says where in the document it stands.

    Raises:
        BadMetadata: its package URL, name or version cannot be used.
    """
    stated = clean(place, "version", version)
    if purl:
        parsed, extra = _parsed(place, purl), []
    else:
        parsed, extra = make_purl("generic", required(place, "name", name), stated, member=place), [NO_PURL]
    return Component(
        ecosystem=clean(place, "ecosystem", ecosystem) or ecosystem_of(parsed),
        name=_name(parsed, name),
        version=parsed.version or stated,
        purl=str(parsed),
        files=sorted(set(files)),
        found_by=sorted({clean(place, "found-by", finder) for finder in found_by}),
        licences=[words for words in dict.fromkeys(map(own_words, licences)) if words][:MAX_LICENCES],
        scope=scope,
        requires=requirements(requires),
        source_name=clean(place, "source name", source[0]) or _upstream(parsed)[0],
        source_version=clean(place, "source version", source[1]) or _upstream(parsed)[1],
        notes=sorted({clean(place, "note", note) for note in (*notes, *extra)}),
    )


def scope_of(place: str, stated: str) -> Scope:
    """Return the scope of that name; raise ``BadMetadata`` for another one."""
    try:
        return Scope(stated)
    except ValueError:
        known = ", ".join(scope.value for scope in Scope)
        raise BadMetadata(place, f"scope {shown(stated)!r} is none of {known}; correct it") from None


def _parsed(place: str, purl: object) -> Purl:
    return parse_purl(clean(place, "purl", purl, 4_096), place)


def _name(purl: Purl, stated: str) -> str:
    # The URL folds the names of npm; where the document spells the same name otherwise, that is the real one.
    name = component_name(purl)
    return stated if stated.lower() == name.lower() and purl.type == "npm" else name


def _upstream(purl: Purl) -> tuple[str, str]:
    """Return the source package that syft and Trivy put into a qualifier: "name" or "name@version"."""
    if purl.type not in {"deb", "rpm"}:
        return "", ""
    name, _, version = purl.qualifier("upstream").partition("@")
    return name, version or (purl.version if name else "")
