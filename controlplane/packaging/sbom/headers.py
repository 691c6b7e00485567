"""Headers "Name: value", as Python's METADATA, Debian's control files and the manifests of jars have them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from controlplane.packaging.sbom.errors import BadMetadata
from controlplane.packaging.sbom.text import shown

MAX_LINES = 1_000_000
"""Lines that are read; dpkg's database of a machine with 5,000 packages has about 200,000."""

_NAME = re.compile(r"[!-9;-~]+")
_LINE_END = re.compile(r"\r\n|\r|\n")
Headers = Mapping[str, Sequence[str]]
"""Values by name in lower case, in their order; continuation lines joined by a line feed."""


def paragraphs(member: str, text: str) -> Iterator[Headers]:
    """Yield the headers of each paragraph; empty lines part them.

    Raises:
        BadMetadata: a line is neither a header nor the continuation of one, or there are too many.
    """
    lines = _LINE_END.split(text)
    if len(lines) > MAX_LINES:
        raise BadMetadata(member, f"it has {len(lines)} lines, more than {MAX_LINES}; shorten it")
    block: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            block.append(line)
        elif block:
            yield _headers(member, block)
            block = []


def first_paragraph(member: str, text: str) -> Headers:
    """Return the headers before the first empty line; errors as ``paragraphs`` has them."""
    for headers in paragraphs(member, text):
        return headers
    raise BadMetadata(member, "it is empty; it must state at least a name and a version")


def value(headers: Headers, name: str) -> str:
    """Return the first value of a header without the white space around it; empty where it is absent."""
    values = headers.get(name.lower(), ())
    return values[0].strip() if values else ""


def manifest(member: str, text: str) -> Headers:
    """Return the main section of a jar's manifest, whose continuation lines join without a line break.

    The rules are those of the JAR file specification: a line that begins with one space continues the one
    before.
    """
    section = _LINE_END.sub("\n", text).partition("\n\n")[0]
    return first_paragraph(member, section.replace("\n ", ""))


def _headers(member: str, lines: Sequence[str]) -> Headers:
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in lines:
        if line[0] in " \t":
            if current is None:
                raise BadMetadata(
                    member, f"it begins with a continuation line {shown(line)!r}; begin with a header"
                )
            current[-1] += f"\n{line.strip()}"
            continue
        name, colon, rest = line.partition(":")
        if not colon or not _NAME.fullmatch(name):
            raise BadMetadata(member, f"the line {shown(line)!r} is no header 'Name: value'; correct it")
        current = found.setdefault(name.lower(), [])
        current.append(rest.strip())
    return found
