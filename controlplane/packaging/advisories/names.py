"""How components and records name the same package: normalised names, and ecosystems with releases.

OSV writes a release behind a colon ("Debian:12", "AlmaLinux:8"). An ecosystem without it is the base;
exports, imports and coverage go by bases, and are told apart by the releases that they have.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote

_PYPI = re.compile(r"[-_.]+")


def base(ecosystem: str) -> str:
    """Return an ecosystem without its release."""
    return ecosystem.partition(":")[0]


def normalise(ecosystem: str, name: str) -> str:
    """Return the one spelling of a package's name.

    PyPI's by PEP 503. Go's in lower case, because package URLs write it so; hosts of Go modules do not tell
    the cases apart. Maven's "group/artifact" with a colon, as OSV writes it.
    """
    kind = base(ecosystem)
    if kind == "PyPI":
        return _PYPI.sub("-", name).lower()
    if kind == "Go":
        return name.lower()
    return name.replace("/", ":") if kind == "Maven" else name


def releases(ecosystem: str, known: Iterable[str]) -> list[str]:
    """Return those of the ``known`` ecosystems whose records speak of a component's ``ecosystem``, sorted.

    A record without a release speaks of every one. A point release is spoken of by its major one
    ("AlmaLinux:8" of "AlmaLinux:8.9"). A component without a release may be of any: records of all of them
    are looked at.
    """
    kind, colon, release = ecosystem.partition(":")
    same = [one for one in known if base(one) == kind]
    if not colon:
        return sorted(same)
    wanted = {kind, ecosystem, f"{kind}:{release.partition('.')[0]}", f"{ecosystem}:LTS"}
    return sorted(one for one in same if one in wanted)


def split_purl(purl: str) -> tuple[str, str, Mapping[str, str]]:
    """Return a package URL without version and qualifiers, its version, and its qualifiers.

    Texts are percent-decoded, the name of a PyPI package is normalised. Empty texts for what is not a purl.
    """
    if not purl.startswith("pkg:"):
        return "", "", {}
    head, _, query = purl.partition("#")[0].partition("?")
    place, at, version = head.rpartition("@")
    if not at or "/" in version:
        place, version = head, ""
    kind, _, name = unquote(place).removeprefix("pkg:").strip("/").partition("/")
    if kind.lower() == "pypi":
        name = normalise("PyPI", name)
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    return (
        f"pkg:{kind.lower()}/{name}",
        unquote(version),
        {key.lower(): unquote(value) for key, _, value in pairs},
    )
