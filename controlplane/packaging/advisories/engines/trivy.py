"""Trivy as an engine over our own advisories: its database, its document, and what it answers.

Trivy gets a database of just the records about the packages in question, and a CycloneDX document of those
packages, both made for one scan: there is nothing that could be stale, and nothing to keep. The names in both
are as our records have them; what Trivy adds is its own comparison of versions.

It says nothing where it could not compare, or did not look, as it does where a version is not affected. That
silence is made to speak:

* Beside each advisory of a language there is its opposite, met by just the versions that do not meet it.
  An answer has one of the two; where it has neither, Trivy could not compare.
* Each package of a distribution has an advisory that every version meets. Where that is not answered, the
  package was passed over.
* A document has a component of ours that is always affected. An answer without it is no answer.

Sources of its rules: ``pkg/detector/library`` and ``pkg/detector/ospkg`` of Trivy, ``pkg/db`` of trivy-db.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from controlplane.packaging.advisories.engines import bolt, constraints
from controlplane.packaging.advisories.engines.records import Asking, EngineError, Question
from controlplane.packaging.advisories.names import base
from controlplane.packaging.advisories.records import Affected

NAME = "trivy"
SOURCE = "Fleetwright"
"""How the database calls where its advisories are from."""
METADATA = (
    b'{"Version":2,"NextUpdate":"9999-01-01T00:00:00Z","UpdatedAt":"2000-01-01T00:00:00Z",'
    b'"DownloadedAt":"2000-01-01T00:00:00Z"}'
)
"""What lies beside the database. Its times mean nothing: Trivy is not to replace it."""

_LANGUAGES = {
    "PyPI": ("pypi", "pip"),
    "npm": ("npm", "npm"),
    "Go": ("golang", "go"),
    "Maven": ("maven", "maven"),
}
"""By ecosystem: the type of package URLs, and what buckets of the database are called by."""
_SYSTEMS = {"Debian": ("deb", "debian"), "AlmaLinux": ("rpm", "alma")}
"""By ecosystem: the type of package URLs, and what the distribution is called.

Others are not asked about: Trivy wants more of them than their records in OSV's form say.
"""
_OPPOSITE = "!"
"""Before an id: the advisory's opposite. No id begins with it."""
_PASSED = "!"
"""Id of what every version of a distribution's package is affected by."""
_NEVER_FIXED = {"deb": "99999:0", "rpm": "99999:0-0"}
_ALIVE = "!alive"
"""Id of what our own component is affected by, and the name that it has in a document."""
_ALIVE_NAME = "fleetwright-alive"
_MODULAR = ".module_"
"""In versions of AlmaLinux's modular packages, of which Trivy wants a label that nothing tells."""
_LONGEST_LINE = 300

TEMPLATE = (
    "{{range .}}{{range .Vulnerabilities}}{{.PkgIdentifier.BOMRef}} {{.VulnerabilityID}}\n{{end}}{{end}}"
)
"""What Trivy writes: a line for each finding. A document of JSON would have to be trusted to be small."""


@dataclass(slots=True)
class Sheet:
    """What Trivy is asked in one run: the packages of languages, or of one release of a distribution."""

    system: str = ""
    """The ecosystem with its release; empty for languages."""
    questions: list[Question] = field(default_factory=list)
    whole: dict[Question, set[str]] = field(default_factory=dict)
    """By question: advisories of which "not affected" is believed; of others only a finding counts."""
    database: dict[bytes, dict[bytes, dict[bytes, bytes]]] = field(default_factory=dict)


def sheets(asking: Asking) -> list[Sheet]:
    """Return what to ask, in as few runs as there are releases; what Trivy cannot judge is left out."""
    found: dict[str, Sheet] = {}
    for question in sorted(asking.known):
        if not is_asked(question) or not asking.known[question]:
            continue
        system = question.ecosystem if base(question.ecosystem) in _SYSTEMS else ""
        sheet = found.setdefault(system, Sheet(system))
        _put(sheet, question, asking.known[question])
    return [found[system] for system in sorted(found) if found[system].questions]


def is_asked(question: Question) -> bool:
    """Return whether Trivy has rules for a question."""
    kind, _, release = question.ecosystem.partition(":")
    if kind in _LANGUAGES:
        return not release
    return kind in _SYSTEMS and release.partition(".")[0].isdecimal() and _MODULAR not in question.version


def database_of(sheet: Sheet) -> bytes:
    """Return the file of a sheet's database. Raises ``EngineError``."""
    content: dict[bytes, dict[bytes, bolt.Bucket | bytes]] = {
        name: dict(packages) for name, packages in sheet.database.items()
    }
    alive = {_ALIVE.encode(): _json({"VulnerableVersions": [constraints.ALWAYS]})}
    content.setdefault(_bucket("PyPI"), {})[_ALIVE_NAME.encode()] = alive
    ids = {one for packages in sheet.database.values() for ids in packages.values() for one in ids}
    content[b"vulnerability"] = dict.fromkeys({*ids, _ALIVE.encode()}, b'{"Severity":"UNKNOWN"}')
    content[b"data-source"] = dict.fromkeys([*content], _json({"ID": "osv", "Name": SOURCE}))
    try:
        return bolt.write(content)
    except bolt.BoltError as error:
        raise EngineError(f"{NAME}: its database cannot be written: {error}") from None


def document_of(sheet: Sheet) -> bytes:
    """Return the CycloneDX document of a sheet."""
    components: list[dict[str, Any]] = [
        _component(number, question) for number, question in enumerate(sheet.questions)
    ]
    if sheet.system:
        name, release = _distribution(sheet.system)
        components.append({"type": "operating-system", "bom-ref": "system", "name": name, "version": release})
    alive = {"type": "library", "bom-ref": _ALIVE, "name": _ALIVE_NAME, "version": "1.0.0"}
    components.append({**alive, "purl": f"pkg:pypi/{_ALIVE_NAME}@1.0.0"})
    subject = {"type": "application", "bom-ref": "subject", "name": "subject"}
    return _json(
        {
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": {"component": subject},
            "components": components,
        }
    )


def read(sheet: Sheet, output: bytes) -> dict[Question, dict[str, bool]]:
    """Return what Trivy said of a sheet's questions. Raises ``EngineError`` for what cannot be an answer."""
    found: dict[Question, set[str]] = {question: set() for question in sheet.questions}
    alive = False
    for reference, identifier in _lines(output):
        if reference == _ALIVE:
            alive = alive or identifier == _ALIVE
        else:
            found[_asked(sheet, reference)].add(identifier)
    if not alive:
        raise EngineError(
            f"{NAME}: it did not find what is always there to be found, so its answer is none; look whether "
            "this release of it reads the database that it is given"
        )
    return {question: _said(sheet, question, ids) for question, ids in found.items()}


def _lines(output: bytes) -> Iterator[tuple[str, str]]:
    for line in output.splitlines():
        if len(line) > _LONGEST_LINE or len(parts := line.split(b" ")) != 2:
            raise EngineError(f"{NAME}: it wrote a line that was not asked for: {line[:80]!r}")
        yield parts[0].decode("utf-8", "replace"), parts[1].decode("utf-8", "replace")


def _asked(sheet: Sheet, reference: str) -> Question:
    digits = reference.removeprefix("c")
    if (
        reference[:1] == "c"
        and digits.isdecimal()
        and digits.isascii()
        and int(digits) < len(sheet.questions)
    ):
        return sheet.questions[int(digits)]
    raise EngineError(f"{NAME}: it tells of a component that is not in the document: {reference[:80]!r}")


def _said(sheet: Sheet, question: Question, ids: set[str]) -> dict[str, bool]:
    given = sheet.database[_bucket(question.ecosystem)][_key(question)]
    strange = sorted(one for one in ids if one.encode() not in given)
    if strange:
        raise EngineError(
            f"{NAME}: it tells of an advisory that is not about {question.name}: {strange[0]!r}"
        )
    affected = {one for one in ids if not one.startswith(_OPPOSITE)}
    if sheet.system:
        clean = sheet.whole[question] - affected if _PASSED in ids else set[str]()
    else:
        clean = {one.removeprefix(_OPPOSITE) for one in ids if one.startswith(_OPPOSITE)}
        both = sorted(clean & affected)
        if both:
            raise EngineError(
                f"{NAME}: it says of {question.name} both that {both[0]} is met and that it is not"
            )
    return {**dict.fromkeys(clean & sheet.whole[question], False), **dict.fromkeys(affected, True)}


def _put(sheet: Sheet, question: Question, known: Iterable[tuple[str, Sequence[Affected]]]) -> None:
    entries, whole = (_of_system if sheet.system else _of_language)(question, known)
    if not entries:
        return
    sheet.questions.append(question)
    sheet.whole[question] = whole
    packages = sheet.database.setdefault(_bucket(question.ecosystem), {})
    packages.setdefault(_key(question), {}).update(entries)


_Entries = tuple[dict[bytes, bytes], set[str]]
"""What the database has of a package, by id; and the ids of which silence means "not affected"."""


def _of_language(question: Question, known: Iterable[tuple[str, Sequence[Affected]]]) -> _Entries:
    entries: dict[bytes, bytes] = {}
    whole = set()
    for advisory, blocks in known:
        met = constraints.of_language(question.ecosystem, blocks)
        if not met.texts:
            continue
        entries[advisory.encode()] = _json({"VulnerableVersions": met.texts})
        if met.whole and constraints.ALWAYS not in met.texts:
            whole.add(advisory)
            entries[f"{_OPPOSITE}{advisory}".encode()] = _json({"PatchedVersions": met.texts})
    return entries, whole


def _of_system(question: Question, known: Iterable[tuple[str, Sequence[Affected]]]) -> _Entries:
    entries: dict[bytes, bytes] = {}
    whole = set()
    purl_type, _ = _SYSTEMS[base(question.ecosystem)]
    for advisory, blocks in known:
        fix = constraints.fix_of_system(question.ecosystem, blocks)
        # For Debian no fix means that there is none yet; of packages of RPM Trivy does not know such.
        if fix or (fix == "" and purl_type == "deb"):
            entries[advisory.encode()] = _json({"FixedVersion": fix})
            whole.add(advisory)
    if entries:
        entries[_PASSED.encode()] = _json({"FixedVersion": _NEVER_FIXED[purl_type]})
    return entries, whole


def _bucket(ecosystem: str) -> bytes:
    kind = base(ecosystem)
    if kind in _LANGUAGES:
        return f"{_LANGUAGES[kind][1]}::{SOURCE}".encode()
    return " ".join(_distribution(ecosystem)).encode()


def _distribution(ecosystem: str) -> tuple[str, str]:
    kind, _, release = ecosystem.partition(":")
    return _SYSTEMS[kind][1], release.partition(".")[0]


def _key(question: Question) -> bytes:
    # Trivy asks for names in lower case, but for Go's; ours of Go are in lower case.
    return (question.name.lower() if question.ecosystem in _LANGUAGES else question.name).encode()


def _component(number: int, question: Question) -> dict[str, Any]:
    kind, version, query = base(question.ecosystem), question.version, ""
    group, _, name = question.name.rpartition(":" if kind == "Maven" else "/")
    if kind not in _LANGUAGES:
        group, name = "", question.name
    purl_type = (_LANGUAGES.get(kind) or _SYSTEMS[kind])[0]
    epoch, colon, rest = version.partition(":")
    if purl_type == "rpm" and colon:
        version, query = rest, f"?epoch={epoch}"
    path = "/".join(quote(part, safe="") for part in (*group.split("/"), name) if part)
    told = {"name": name, "version": version, **({"group": group} if group else {})}
    purl = f"pkg:{purl_type}/{path}@{quote(version, safe='')}{query}"
    return {"type": "library", "bom-ref": f"c{number}", "purl": purl, **told}


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
