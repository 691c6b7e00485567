"""Reading what others wrote: strict, bounded, with errors that name the field."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fleetwright.verify.documents import JsonObject, canonical, instant_text, parse_object
from fleetwright.verify.errors import Malformed, VerificationError
from fleetwright.verify.keys import AttestationKeys, Attester, PublicKey, Purpose, parse_keys
from fleetwright.verify.statements import parse_statement
from hypothesis import given
from hypothesis import strategies as st

from controlplane.trust.keys import SigningKey

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
STATEMENTS = JSON.map(
    lambda value: canonical(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": value,
            "predicate": value,
            "predicateType": value,
        }
    )
)


def read(content: bytes) -> JsonObject:
    return parse_object(content, "document", 100_000)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON, max_size=5))
def test_canonical_json_is_read_back_and_written_the_same(value: dict[str, Any]) -> None:
    written = canonical(value)
    assert read(written).value == value
    assert canonical(json.loads(written)) == written
    assert canonical(dict(reversed(value.items()))) == written


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", {1, 2}, object()])
def test_what_json_cannot_carry_is_not_written(value: object) -> None:
    with pytest.raises(Malformed, match="cannot be written"):
        canonical({"value": value})


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{"a": 1, "a": 2}', "'a' stands twice"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": -Infinity}', "-Infinity is no number"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": "\\ud800"}', "not UTF-8"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a": ' + b"[" * 50_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "not readable as JSON"),
        (b"[]", "this is a list"),
        (b"null", "this is null"),
        (b"true", "this is true or false"),
        (b"{}" * 60_000, "at most 100000 are read"),
        (b"", "not readable as JSON"),
        (b'{"a": 1} x', "not readable as JSON"),
    ],
)
def test_bad_documents_say_why(content: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        read(content)


def test_characters_in_two_halves_are_whole() -> None:
    assert read(b'{"a": "\\ud83d\\ude00"}').text("a") == "\N{GRINNING FACE}"


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda found: found.text("number"), "document: number: a text is expected, and this is a number"),
        (lambda found: found.text("none"), "document: none: missing; a text is expected"),
        (lambda found: found.text("text", longest=2), "document: text: 4 characters, where at most 2"),
        (lambda found: found.integer("yes"), "document: yes: True, where 0 to"),
        (lambda found: found.integer("number", highest=4), "document: number: 5, where 0 to 4"),
        (lambda found: found.child("list"), "document: list: an object is expected, and this is a list"),
        (lambda found: found.children("list", 9), r"document: list\[0\]: an object is expected"),
        (lambda found: found.texts("list", 1), "document: list: 2 items, where at most 1"),
        (lambda found: found.texts("text", 1), "document: text: a list is expected, and this is a text"),
        (lambda found: found.child("child").text("x"), r"document: child\.x: missing"),
        (lambda found: found.sha256("child"), r"document: child\.sha256: missing"),
        (lambda found: found.hexadecimal("text"), "document: text: 64 lower-case hexadecimal digits"),
        (lambda found: found.instant("text"), "document: text: 'text' is no time"),
        (lambda found: found.instant("local"), "document: local: '2030-01-01T00:00:00' is no time"),
        (lambda found: found.instant("never"), "document: never: '2030-02-31T00:00:00Z' is no time"),
    ],
)
def test_each_wrong_field_is_named(call: Any, why: str) -> None:
    value = {
        "number": 5, "text": "text", "yes": True, "list": [1, 2], "child": {},
        "local": "2030-01-01T00:00:00", "never": "2030-02-31T00:00:00Z",
    }  # fmt: skip
    with pytest.raises(Malformed, match=why):
        call(read(canonical(value)))


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9998, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - hypothesis adds the zone
def test_instants_are_read_back(moment: datetime) -> None:
    assert JsonObject({"at": instant_text(moment)}, "document").instant("at") == moment


def an_attester(*purposes: Purpose) -> Attester:
    return Attester(SigningKey.generate().public, frozenset(purposes), datetime(2031, 1, 1, tzinfo=UTC))


def test_the_document_of_keys_is_read_back() -> None:
    keys = AttestationKeys(3, (an_attester(Purpose.SCAN), an_attester(Purpose.SBOM, Purpose.PROVENANCE)))
    found = parse_keys(keys.to_bytes())
    assert set(found.attesters) == set(keys.attesters)
    assert found.to_bytes() == keys.to_bytes()
    [scanner] = found.of_purpose(Purpose.SCAN, datetime(2030, 1, 1, tzinfo=UTC))
    assert scanner == keys.attesters[0].key
    assert found.of_purpose(Purpose.SCAN, datetime(2031, 1, 1, tzinfo=UTC)) == ()


def test_purposes_of_later_versions_are_passed_over() -> None:
    document = json.loads(AttestationKeys(1, (an_attester(Purpose.SCAN),)).to_bytes())
    document["keys"][0]["purposes"] = ["approval", "scan"]
    [attester] = parse_keys(canonical(document)).attesters
    assert attester.purposes == {Purpose.SCAN}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"_type": "keys"}, "_type"),
        ({"keys": []}, "nobody could attest"),
        ({"version": 0}, "version"),
    ],
)
def test_a_wrong_document_of_keys_is_refused(change: dict[str, Any], why: str) -> None:
    document = json.loads(AttestationKeys(1, (an_attester(Purpose.SCAN),)).to_bytes())
    with pytest.raises(Malformed, match=why):
        parse_keys(canonical({**document, **change}))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"keyid": "0" * 64}, "is expected for this key"),
        ({"keytype": "rsa"}, "'ed25519' is expected"),
        ({"public": "00"}, "64 lower-case hexadecimal digits"),
        ({"expires": "soon"}, "is no time"),
    ],
)
def test_a_wrong_key_is_refused(change: dict[str, Any], why: str) -> None:
    document = json.loads(AttestationKeys(1, (an_attester(Purpose.SCAN),)).to_bytes())
    document["keys"][0] |= change
    with pytest.raises(Malformed, match=why):
        parse_keys(canonical(document))


def test_one_key_twice_is_refused() -> None:
    attester = an_attester(Purpose.SCAN)
    with pytest.raises(Malformed, match="stands there twice"):
        parse_keys(AttestationKeys(1, (attester, attester)).to_bytes())


def test_text_that_is_no_key_is_refused() -> None:
    for text in ("", "zz", "00" * 31):
        with pytest.raises(Malformed, match="Ed25519"):
            PublicKey.of(text)


@given(st.binary(max_size=300) | STATEMENTS)
def test_any_statement_is_read_or_refused_with_our_error(payload: bytes) -> None:
    with suppress(VerificationError):
        parse_statement(payload).read()


def test_an_hour_is_an_hour() -> None:
    assert instant_text(datetime(2030, 1, 1, tzinfo=UTC) + timedelta(hours=1)) == "2030-01-01T01:00:00Z"
