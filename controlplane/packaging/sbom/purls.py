"""Package URLs, by the Package-URL specification (ECMA-427).

``format_purl`` writes the one canonical form, ``parse_purl`` reads any form that the specification allows.
For every ``Purl`` of ``make_purl``, parsing what was formatted gives the same one.

Names are folded by the rules of their type, with one exception that is on purpose: the specification has Go's
module paths in lower case, but they are case-sensitive, advisories are filed under the real spelling, and
other tools keep it; folded, ``github.com/BurntSushi/toml`` would silently match nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from controlplane.packaging.sbom.errors import BadMetadata
from controlplane.packaging.sbom.text import clean, shown

MAX_PURL = 4_096
"""Characters of one package URL; real ones with every qualifier stay below 500."""

_TYPE = re.compile(r"[a-z][a-z0-9.-]*")
_KEY = re.compile(r"[a-z][a-z0-9._-]*")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PYPI_SEPARATORS = re.compile(r"[-_.]+")
_FOLDED_NAMES = frozenset({"npm", "deb", "github", "bitbucket", "gitlab", "composer"})
_FOLDED_NAMESPACES = _FOLDED_NAMES | {"rpm", "apk", "alpm"}


@dataclass(frozen=True, slots=True)
class Purl:
    """A package URL in parts, decoded and normalised; made by ``make_purl`` or ``parse_purl``."""

    type: str
    name: str
    version: str = ""
    namespace: str = ""
    """Segments joined by "/"; empty where the type has none."""
    qualifiers: tuple[tuple[str, str], ...] = ()
    """Key and value, sorted by key."""
    subpath: str = ""

    def __str__(self) -> str:
        return format_purl(self)

    def qualifier(self, key: str) -> str:
        """Return the value of a qualifier; empty where it is absent."""
        return dict(self.qualifiers).get(key, "")

    @property
    def core(self) -> tuple[str, str, str, str]:
        """Type, namespace, name and version; in lower case where tools differ in it."""
        if self.type in {"npm", "golang"}:
            return (self.type, self.namespace.lower(), self.name.lower(), self.version)
        return (self.type, self.namespace, self.name, self.version)


def make_purl(
    type_: str,
    name: str,
    version: str = "",
    *,
    namespace: str = "",
    qualifiers: Mapping[str, str] | None = None,
    subpath: str = "",
    member: str = "purl",
) -> Purl:
    """Return a package URL with every part normalised.

    Raises:
        BadMetadata: a part breaks the specification; ``member`` says where it came from.
    """
    folded = type_.lower()
    if not _TYPE.fullmatch(folded):
        raise BadMetadata(member, f"package URL type {shown(type_)!r} is not letters, digits, '.' and '-'")
    parts = [clean(member, field, value) for field, value in _named(name, version, namespace, subpath)]
    bare = _folded_name(folded, parts[0].strip("/"))
    if not bare:
        raise BadMetadata(member, "the name of a package URL is empty; every package has one")
    return Purl(
        type=folded,
        name=bare,
        version=parts[1],
        namespace=_folded_namespace(folded, parts[2]),
        qualifiers=_qualifiers(member, (qualifiers or {}).items()),
        subpath="/".join(part for part in parts[3].split("/") if part not in ("", ".", "..")),
    )


def format_purl(purl: Purl) -> str:
    """Return the canonical form: "pkg:type/namespace/name@version?qualifiers#subpath"."""
    text = f"pkg:{purl.type}/"
    if purl.namespace:
        text += "/".join(_encode(segment) for segment in purl.namespace.split("/")) + "/"
    text += _encode(purl.name)
    if purl.version:
        text += f"@{_encode(purl.version)}"
    if purl.qualifiers:
        # The specification's own examples leave the "/" of addresses as it is here.
        text += "?" + "&".join(f"{key}={quote(value, safe=':/')}" for key, value in purl.qualifiers)
    if purl.subpath:
        text += "#" + "/".join(_encode(segment) for segment in purl.subpath.split("/"))
    return text


def parse_purl(text: str, member: str = "purl") -> Purl:
    """Return the parts of a package URL, by the specification's way from right to left.

    Raises:
        BadMetadata: it is none; the message says at what.
    """
    if len(text) > MAX_PURL:
        raise BadMetadata(member, f"the package URL has {len(text)} characters, more than {MAX_PURL}")
    remainder, subpath = _split_right(clean(member, "package URL", text, MAX_PURL), "#")
    remainder, query = _split_right(remainder, "?")
    scheme, colon, remainder = remainder.partition(":")
    if scheme.lower() != "pkg" or not colon:
        raise BadMetadata(member, f"{shown(text)!r} is no package URL: it does not begin with 'pkg:'")
    type_, _, path = remainder.lstrip("/").partition("/")
    path, version = _split_version(path.strip("/"))
    namespace, _, name = path.rpartition("/")
    return make_purl(
        type_,
        _decode(member, name),
        _decode(member, version),
        namespace=_segments(member, namespace),
        qualifiers=dict(_parsed_qualifiers(member, query)),
        subpath=_segments(member, subpath),
        member=member,
    )


def normal_pypi_name(name: str) -> str:
    """Return the name under which PyPI knows a distribution (PEP 503)."""
    return _PYPI_SEPARATORS.sub("-", name).lower()


def _named(name: str, version: str, namespace: str, subpath: str) -> Iterable[tuple[str, str]]:
    return (("name", name), ("version", version), ("namespace", namespace), ("subpath", subpath))


def _folded_name(type_: str, name: str) -> str:
    if type_ == "pypi":
        return normal_pypi_name(name)
    return name.lower() if type_ in _FOLDED_NAMES else name


def _folded_namespace(type_: str, namespace: str) -> str:
    joined = "/".join(segment for segment in namespace.split("/") if segment)
    return joined.lower() if type_ in _FOLDED_NAMESPACES else joined


def _qualifiers(member: str, pairs: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for key, value in pairs:
        folded = key.lower()
        if not _KEY.fullmatch(folded):
            raise BadMetadata(
                member, f"qualifier {shown(key)!r} of a package URL is not letters, digits and '._-'"
            )
        if folded in found:
            raise BadMetadata(member, f"qualifier {folded!r} of a package URL is given twice; give it once")
        if cleaned := clean(member, f"qualifier {folded}", value):
            found[folded] = cleaned
    return tuple(sorted(found.items()))


def _parsed_qualifiers(member: str, query: str) -> Iterable[tuple[str, str]]:
    seen: set[str] = set()
    for pair in filter(None, query.split("&")):
        key, _, value = pair.partition("=")
        if key.lower() in seen:
            raise BadMetadata(
                member, f"qualifier {shown(key)!r} of a package URL is given twice; give it once"
            )
        seen.add(key.lower())
        yield key, _decode(member, value)


def _split_right(text: str, separator: str) -> tuple[str, str]:
    at = text.rfind(separator)
    return (text, "") if at < 0 else (text[:at], text[at + 1 :])


def _split_version(path: str) -> tuple[str, str]:
    # An "@" that begins a segment is the scope of an npm package that somebody left unencoded, not a version.
    at = path.rfind("@")
    if at <= 0 or path[at - 1] == "/":
        return path, ""
    return path[:at].rstrip("/"), path[at + 1 :]


def _segments(member: str, path: str) -> str:
    segments = [_decode(member, segment) for segment in path.split("/") if segment]
    if any("/" in segment for segment in segments):
        raise BadMetadata(member, "a segment of a package URL holds an encoded '/'; separate segments by '/'")
    return "/".join(segments)


def _encode(text: str) -> str:
    return quote(text, safe=":")


def _decode(member: str, text: str) -> str:
    if _BROKEN_ESCAPE.search(text):
        raise BadMetadata(
            member, f"{shown(text)!r} has a '%' that no two hexadecimal digits follow; write '%25'"
        )
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise BadMetadata(
            member, f"{shown(text)!r} is not UTF-8 once it is decoded; encode it as UTF-8"
        ) from None
