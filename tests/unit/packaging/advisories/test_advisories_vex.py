"""OpenVEX documents: reading them, and what they make of findings."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.packaging.advisories.vex import VexError, apply, covers, parse
from controlplane.packaging.records import Finding, Severity

PURL = "pkg:pypi/foo-bar@1.0"
FINDING = Finding(
    vulnerability="CVE-2024-0001",
    aliases=("CVE-2024-0001", "GHSA-1"),
    component=PURL,
    severity=Severity.HIGH,
    severity_source="",
    score=None,
    matched="",
    fixed="",
    found_by=("fleetwright",),
)
STATEMENT: dict[str, Any] = {
    "vulnerability": {"name": "CVE-2024-0001"},
    "products": [{"@id": "pkg:pypi/Foo_Bar"}],
    "status": "not_affected",
    "justification": "vulnerable_code_not_present",
}


def document(*statements: Any, **changes: Any) -> bytes:
    whole = {
        "@context": "https://openvex.dev/ns/v0.2.0",
        "@id": "https://example.org/vex/1",
        "author": "ada",
        "timestamp": "2024-05-01T00:00:00Z",
        "version": 1,
        "statements": list(statements),
        **changes,
    }
    return json.dumps({key: value for key, value in whole.items() if value is not ...}).encode()


def said(**changes: Any) -> dict[str, Any]:
    return {key: value for key, value in {**STATEMENT, **changes}.items() if value is not ...}


def state(*statements: Any, product: str = "", finding: Finding = FINDING) -> str:
    return apply([finding], parse(document(*statements)), product)[0].state


def test_a_statement_sets_the_state_and_its_justification() -> None:
    (found,) = apply([FINDING], parse(document(STATEMENT)))
    assert (found.state, found.justification) == ("not_affected", "vulnerable_code_not_present")


@pytest.mark.parametrize("status", ["affected", "fixed", "under_investigation"])
def test_every_status_is_kept_as_it_is(status: str) -> None:
    assert state(said(status=status, justification=...)) == status


def test_a_vulnerability_is_known_by_any_of_its_names() -> None:
    assert state(said(vulnerability="GHSA-1")) == "not_affected"
    assert state(said(vulnerability={"name": "OTHER-1", "aliases": ["GHSA-1"]})) == "not_affected"
    assert state(said(vulnerability={"name": "CVE-2024-0002"})) == "affected"


@pytest.mark.parametrize(
    ("stated", "purl", "same"),
    [
        ("pkg:pypi/foo", "pkg:pypi/foo@1.0", True),
        ("pkg:pypi/foo@1.0", "pkg:pypi/foo@1.0", True),
        ("pkg:pypi/foo@1.1", "pkg:pypi/foo@1.0", False),
        ("pkg:pypi/Foo_Bar", "pkg:pypi/foo-bar@1.0", True),
        ("pkg:npm/%40scope/a", "pkg:npm/@scope/a@1.0", True),
        ("pkg:npm/@scope/a@1.0", "pkg:npm/%40scope/a@1.0", True),
        ("pkg:npm/a", "pkg:npm/@scope/a@1.0", False),
        ("pkg:deb/debian/x@1?arch=amd64", "pkg:deb/debian/x@1?arch=amd64&distro=debian-12", True),
        ("pkg:deb/debian/x@1?arch=arm64", "pkg:deb/debian/x@1?arch=amd64", False),
        ("pkg:deb/debian/x@1%3A2", "pkg:deb/debian/x@1:2", True),
        ("not a purl", "not a purl", False),
        ("", "pkg:pypi/foo", False),
    ],
)
def test_a_stated_purl_speaks_of_what_it_does_not_restrict(stated: str, purl: str, same: bool) -> None:
    assert covers(stated, purl) == same


def test_a_product_is_also_known_by_its_purl_identifier() -> None:
    assert (
        state(said(products=[{"@id": "https://example.org/foo", "identifiers": {"purl": PURL}}]))
        == "not_affected"
    )


def test_a_statement_about_the_whole_package_covers_its_components() -> None:
    whole = "pkg:deb/debian/app@2.0"
    about = said(products=[{"@id": whole}])
    assert state(about, product=whole) == "not_affected"
    assert state(about, product="pkg:deb/debian/app@3.0") == "affected"
    part = said(products=[{"@id": whole, "subcomponents": [{"@id": "pkg:pypi/foo-bar"}]}])
    assert state(part, product=whole) == "not_affected"
    assert state(part) == "affected"
    assert (
        state(said(products=[{"@id": whole, "subcomponents": ["pkg:pypi/x"]}]), product=whole) == "affected"
    )


def test_the_newest_statement_counts() -> None:
    old = said(status="fixed", justification=..., timestamp="2024-06-01T00:00:00Z")
    new = said(timestamp="2024-01-01T00:00:00Z", last_updated="2024-07-01T00:00:00Z")
    assert state(new, old) == state(old, new) == "not_affected"
    # Where two are as old, the later one of the document.
    assert state(said(), said(status="fixed", justification=...)) == "fixed"


BAD = [
    (b"{", "not JSON"),
    (b"[" * 100_000, "nested too deep"),
    (b"[]", "must be an object"),
    (b" " * (4 * 1024 * 1024 + 1), "bytes"),
    (document(STATEMENT, **{"@context": "https://example.org"}), "@context"),
    (document(), "statements: is empty"),
    (document(statements={}), "statements: is a dict"),
    (document(STATEMENT, timestamp="2024-05-01"), "timestamp: '2024-05-01' is no instant"),
    (document(1), r"statements\[0\].is a int"),
    (document(STATEMENT, said(status="maybe")), r"statements\[1\].status: 'maybe' is none of"),
    (document(said(justification=...)), "justification: is missing; not_affected needs it"),
    (document(said(justification="because")), "justification: 'because' is none of"),
    (document(said(products=[])), "products: is empty"),
    (document(said(products=[1])), "products"),
    (document(said(vulnerability={})), "name: is missing"),
    (document(said(vulnerability=3)), "vulnerability"),
    (document(said(status=...)), "status: is missing"),
]


@pytest.mark.parametrize(("content", "message"), BAD, ids=[message for _, message in BAD])
def test_a_bad_document_is_an_error_that_names_the_field(content: bytes, message: str) -> None:
    with pytest.raises(VexError, match=message):
        parse(content)


def test_an_impact_statement_is_a_justification_in_words() -> None:
    (found,) = apply([FINDING], parse(document(said(justification=..., impact_statement="not shipped"))))
    assert (found.state, found.justification) == ("not_affected", "not shipped")


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(field=st.sampled_from([*STATEMENT, "timestamp", "impact_statement"]), value=_JSON)
@settings(max_examples=200, deadline=None)
def test_any_value_in_any_field_is_read_or_refused(field: str, value: Any) -> None:
    with suppress(VexError):
        apply([FINDING], parse(document(said(**{field: value}))))
