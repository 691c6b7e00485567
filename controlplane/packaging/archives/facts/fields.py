"""Texts of named fields: METADATA, PKG-INFO, WHEEL, control of debs, MANIFEST.MF.

Each read as its owner reads it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from controlplane.packaging.archives.errors import BadArtefact, Code, printable
from controlplane.packaging.archives.tree import decoded

LINE_END = re.compile(r"\r\n|\r|\n")
FIELD = re.compile(r"([\x21-\x39\x3b-\x7e]+):[ \t]*(.*)", re.DOTALL)
MANIFEST_FIELD = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]{0,69}): ?(.*)", re.DOTALL)
FIELDS = 10_000
"""Fields of one text: a wheel has one for each requirement, classifier and tag, some hundreds at most."""
SHOWN = 500
"""Characters of one field that are kept among the details of a package."""


_Lines = list[tuple[str, list[str]]]
"""Fields while they are read: a name and its lines."""


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of one text, in order; names are compared without case."""

    member: str
    pairs: Sequence[tuple[str, str]]

    def all(self, name: str) -> list[str]:
        """Every value of a field that may come several times."""
        return [value for key, value in self.pairs if key.lower() == name.lower()]

    def one(self, name: str) -> str:
        """The value of a field that may come once, empty where it is absent; ``DUPLICATE_FIELD`` for two."""
        values = self.all(name)
        if len(values) > 1:
            message = f"says {name} {len(values)} times, and readers differ over which one holds"
            raise BadArtefact(Code.DUPLICATE_FIELD, self.member, message)
        return values[0].strip() if values else ""

    def matching(self, name: str, grammar: re.Pattern[str]) -> str:
        """The value of a field that must be there.

        ``BAD_METADATA`` where it is absent or not of its grammar.
        """
        value = self.one(name)
        if not grammar.fullmatch(value):
            said = f"is {printable(value)!r}, which is no valid one" if value else "is missing"
            raise BadArtefact(Code.BAD_METADATA, self.member, f"the field {name} {said}")
        return value

    def details(self, *names: str) -> dict[str, str]:
        """The first lines of those of the fields that are there, by lower-case name, for people."""
        values = {name.lower(): "; ".join(self.all(name)).partition("\n")[0] for name in names}
        return {name: printable(value, SHOWN) for name, value in values.items() if value}


def mail_fields(text: str, member: str) -> Fields:
    """The fields of METADATA or PKG-INFO as Python's ``email`` reads them: another line begins the body."""
    pairs: _Lines = []
    for line in _lines(text):
        if not _take(pairs, line, member):
            break
    return _joined(pairs, member)


def stanza_fields(text: str, member: str) -> Fields:
    """The fields of WHEEL or of a deb's control: one paragraph, and nothing but fields (deb-control(5))."""
    pairs: _Lines = []
    for number, line in enumerate(_lines(text.strip("\r\n")), 1):
        if not _take(pairs, line, member):
            raise BadArtefact(Code.BAD_METADATA, member, f"line {number} is no field: {printable(line)!r}")
    return _joined(pairs, member)


def manifest_fields(raw: bytes, member: str) -> Fields:
    """The main section of MANIFEST.MF.

    Lines are cut at 72 bytes, also within a letter (JAR File Specification).
    """
    joined = re.sub(rb"(?:\r\n|\r|\n) ", b"", raw)
    pairs: _Lines = []
    for line in _lines(decoded(joined, member)):
        if not line:
            break
        field = MANIFEST_FIELD.fullmatch(line)
        if field is None:
            message = f"holds a line that is no attribute: {printable(line)!r}"
            raise BadArtefact(Code.BAD_METADATA, member, message)
        _add(pairs, field, member)
    return _joined(pairs, member)


def property_fields(text: str, member: str) -> Fields:
    """``key=value`` lines as Maven writes pom.properties; remarks begin with ``#`` or ``!``."""
    pairs: list[tuple[str, str]] = []
    for line in _lines(text):
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith(("#", "!")) and len(pairs) < FIELDS:
            pairs.append((key.strip(), value.strip()))
    return Fields(member, pairs)


def _lines(text: str) -> Iterator[str]:
    """One line after the other: a list of all of a text of line feeds would be many times the text."""
    at = 0
    for end in LINE_END.finditer(text):
        yield text[at : end.start()]
        at = end.end()
    yield text[at:]


def _take(pairs: _Lines, line: str, member: str) -> bool:
    """Read a field's first line or a further one; False for a line that is neither."""
    if line[:1] in (" ", "\t") and pairs:
        pairs[-1][1].append(line.strip())
        return True
    field = FIELD.fullmatch(line)
    if field is not None:
        _add(pairs, field, member)
    return field is not None


def _add(pairs: _Lines, field: re.Match[str], member: str) -> None:
    if len(pairs) >= FIELDS:
        raise BadArtefact(Code.METADATA_TOO_LARGE, member, f"has more than {FIELDS} fields")
    pairs.append((field.group(1), [field.group(2)]))


def _joined(pairs: _Lines, member: str) -> Fields:
    return Fields(member, [(name, "\n".join(lines)) for name, lines in pairs])
