"""OpenVEX documents: what somebody who looked says of a vulnerability in a product (github.com/openvex/spec).

A statement names vulnerabilities, products by package URL and a status. Where several speak of one finding,
the newest does. Documents come from outside and are read with limits; who may make them is not decided here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from controlplane.clock import to_micros
from controlplane.packaging.advisories.names import split_purl
from controlplane.packaging.records import Finding

MAX_DOCUMENT = 4 * 1024 * 1024
"""Bytes of a document."""
MAX_STATEMENTS = 10_000
MAX_NAMES = 1_000
"""Products, subcomponents or aliases of one statement."""
MAX_TEXT = 2_048

_CONTEXT = "https://openvex.dev/ns"
STATUSES = ("affected", "not_affected", "fixed", "under_investigation")
JUSTIFICATIONS = (
    "component_not_present",
    "vulnerable_code_not_present",
    "vulnerable_code_not_in_execute_path",
    "vulnerable_code_cannot_be_controlled_by_adversary",
    "inline_mitigations_already_exist",
)


class VexError(ValueError):
    """Bytes are no OpenVEX document; the message names the field and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Product:
    """A product, and the parts of it that a statement is about; none for all of it."""

    purls: Sequence[str]
    parts: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Statement:
    """What a document says of vulnerabilities in products."""

    vulnerabilities: frozenset[str]
    products: Sequence[Product]
    status: str
    justification: str
    """The spec's label, else the statement's own words for the impact."""
    time: int


def parse(content: bytes) -> list[Statement]:
    """Return the statements of a document, in its order. Raises ``VexError``."""
    data = _decode(content)
    context = _text(data, "@context", "")
    if not context.startswith(_CONTEXT):
        raise VexError(f"@context: {context[:80]!r} is not OpenVEX's ({_CONTEXT}…)")
    default = _time(data, 0)
    found = []
    for number, item in enumerate(_list(data, "statements", MAX_STATEMENTS)):
        try:
            found.append(_statement(_object(item), default))
        except VexError as error:
            raise VexError(f"statements[{number}].{error}") from None
    if not found:
        raise VexError("statements: is empty or missing; a document without any says nothing")
    return found


def apply(findings: Sequence[Finding], statements: Sequence[Statement], product: str = "") -> list[Finding]:
    """Return the findings with what the newest statement about each says of its state.

    ``product`` is the purl of the package that was scanned: statements may be about it and its parts.
    """
    if not statements:
        return list(findings)
    ordered = sorted(enumerate(statements), key=lambda numbered: (numbered[1].time, numbered[0]))
    newest_first = [statement for _, statement in reversed(ordered)]
    return [_applied(finding, newest_first, product) for finding in findings]


def _applied(finding: Finding, newest_first: Sequence[Statement], product: str) -> Finding:
    names = {finding.vulnerability, *finding.aliases}
    for statement in newest_first:
        if statement.vulnerabilities & names and any(
            _about(one, finding.component, product) for one in statement.products
        ):
            return replace(finding, state=statement.status, justification=statement.justification)
    return finding


def _about(one: Product, component: str, product: str) -> bool:
    if one.parts:
        return any(covers(purl, product) for purl in one.purls) and any(
            covers(part, component) for part in one.parts
        )
    return any(covers(purl, component) or (bool(product) and covers(purl, product)) for purl in one.purls)


def covers(stated: str, purl: str) -> bool:
    """Return whether a stated purl speaks of ``purl``.

    It does without a version for every version, and without a qualifier for every value of that.
    """
    place, version, qualifiers = split_purl(stated)
    other_place, other_version, other_qualifiers = split_purl(purl)
    return (
        bool(place)
        and place == other_place
        and version in ("", other_version)
        and all(other_qualifiers.get(key) == value for key, value in qualifiers.items())
    )


def _statement(data: Mapping[str, Any], default: int) -> Statement:
    status = _text(data, "status")
    if status not in STATUSES:
        raise VexError(f"status: {status[:80]!r} is none of {', '.join(STATUSES)}")
    justification = _text(data, "justification", "")
    if justification and justification not in JUSTIFICATIONS:
        raise VexError(f"justification: {justification[:80]!r} is none of {', '.join(JUSTIFICATIONS)}")
    impact = _text(data, "impact_statement", "")
    if status == "not_affected" and not (justification or impact):
        raise VexError("justification: is missing; not_affected needs it, or an impact_statement")
    products = [_product(_object_or_id(item)) for item in _list(data, "products", MAX_NAMES)]
    if not products:
        raise VexError("products: is empty or missing; say which products the statement is about")
    return Statement(
        _vulnerabilities(data.get("vulnerability")),
        products,
        status,
        justification or impact,
        _time(data, default),
    )


def _vulnerabilities(item: object) -> frozenset[str]:
    # The first version of the spec had a bare id here.
    data = {"name": item} if isinstance(item, str) else _object(item, "vulnerability: ")
    aliases = _texts(data, "aliases")
    return frozenset((_text(data, "name"), *aliases))


def _product(data: Mapping[str, Any]) -> Product:
    parts = [_object_or_id(item) for item in _list(data, "subcomponents", MAX_NAMES)]
    return Product(_purls(data), [purl for part in parts for purl in _purls(part)])


def _purls(data: Mapping[str, Any]) -> list[str]:
    """Return the purls that identify a product; one that has none can be told by no other name here."""
    identifiers = data.get("identifiers")
    given = identifiers.get("purl") if isinstance(identifiers, dict) else None
    found = [one for one in (data.get("@id"), given) if isinstance(one, str) and split_purl(one)[0]]
    return [one for one in found if len(one) <= MAX_TEXT]


def _object_or_id(item: object) -> Mapping[str, Any]:
    return {"@id": item} if isinstance(item, str) else _object(item, "products: an entry ")


def _decode(content: bytes) -> Mapping[str, Any]:
    if len(content) > MAX_DOCUMENT:
        raise VexError(f"the document has {len(content)} bytes; {MAX_DOCUMENT} are allowed")
    try:
        return _object(json.loads(content), "the document ")
    except RecursionError:
        raise VexError("the document is nested too deep to be one") from None
    except VexError:
        raise
    except ValueError as error:
        raise VexError(f"the document is not JSON in UTF-8: {error}"[:200]) from None


def _object(item: object, what: str = "") -> Mapping[str, Any]:
    if not isinstance(item, dict):
        raise VexError(f"{what}is a {type(item).__name__}, and must be an object")
    return item


def _list(data: Mapping[str, Any], field: str, limit: int) -> list[Any]:
    items = data.get(field, [])
    if not isinstance(items, list):
        raise VexError(f"{field}: is a {type(items).__name__}, and must be a list")
    if len(items) > limit:
        raise VexError(f"{field}: has {len(items)} entries; {limit} are allowed")
    return items


def _texts(data: Mapping[str, Any], field: str) -> list[str]:
    return [_text({field: item}, field) for item in _list(data, field, MAX_NAMES)]


def _text(data: Mapping[str, Any], field: str, default: str | None = None) -> str:
    item = data.get(field, default)
    if not isinstance(item, str):
        raise VexError(f"{field}: is {'missing' if item is None else 'no text'}")
    if len(item) > MAX_TEXT or "\0" in item or (not item and default is None):
        raise VexError(f"{field}: must have 1 to {MAX_TEXT} characters, and no NUL")
    return item.encode("utf-8", "replace").decode()


def _time(data: Mapping[str, Any], default: int) -> int:
    """Return the newest of the instants that a document or statement carries."""
    found = [default] if default else []
    for field in ("timestamp", "last_updated"):
        text = _text(data, field, "")
        if not text:
            continue
        try:
            moment = datetime.fromisoformat(text)
            if moment.tzinfo is None:
                raise ValueError
            found.append(to_micros(moment.astimezone(UTC)))
        except (ValueError, OverflowError):
            raise VexError(f"{field}: {text[:80]!r} is no instant of RFC 3339 with its zone") from None
    return max(found, default=0)
