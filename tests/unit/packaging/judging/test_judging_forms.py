"""What stages hand on is what the next one reads, and nothing else is taken."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.packaging.forms import (
    FormError,
    components_from_json,
    components_to_json,
    facts_of,
    finding_of,
    findings_from_json,
    findings_to_json,
    plain,
    worst_first,
)
from controlplane.packaging.judging.deciding import NEVER, SOONEST, renewal
from controlplane.packaging.judging.subjects import (
    JudgingFailed,
    ScanFacts,
    kept_facts,
    purl_of,
    scan_facts_of,
)
from controlplane.packaging.records import (
    ArtefactFacts,
    ArtefactType,
    Component,
    Finding,
    Requirement,
    Scope,
    Severity,
)
from controlplane.packaging.rules import Decision

_TEXT = st.text(max_size=20)
_TEXTS = st.lists(_TEXT, max_size=3).map(tuple)
_REQUIREMENTS = st.builds(Requirement, _TEXT, _TEXT, st.sampled_from(Scope), _TEXT)
_COMPONENTS = st.builds(
    Component,
    *(_TEXT,) * 4,
    _TEXTS,
    _TEXTS,
    _TEXTS,
    st.sampled_from(Scope),
    st.lists(_REQUIREMENTS, max_size=2).map(tuple),
)
_FINDINGS = st.builds(
    Finding,
    _TEXT,
    _TEXTS,
    _TEXT,
    st.sampled_from(Severity),
    _TEXT,
    st.none() | st.floats(0, 10),
    _TEXT,
    _TEXT,
    _TEXTS,
    certain=st.booleans(),
)
SCAN = ScanFacts(1, "k", {"PyPI": 3}, 2, 1, ("unknown",), 4, 5, "a" * 64, {"fleetwright": "1"})


@given(st.lists(_COMPONENTS, max_size=3))
def test_components_come_back_as_they_went(components: list[Component]) -> None:
    assert components_from_json(components_to_json(components)) == components


@given(st.lists(_FINDINGS, max_size=3))
def test_findings_come_back_as_they_went(findings: list[Finding]) -> None:
    assert findings_from_json(findings_to_json(findings)) == findings
    assert [finding_of(plain(one)) for one in findings] == findings


@given(st.lists(_FINDINGS, max_size=5))
def test_the_worst_stands_first_in_whatever_order_they_came(findings: list[Finding]) -> None:
    ordered = [list(Severity).index(one.severity) for one in worst_first(findings)]
    assert ordered == sorted(ordered)


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[1]", b"[[]]", b"\xff", b"[{}]", b'[{"severity":"bad"}]', b"[" * 100_000],
)
def test_what_is_no_list_of_them_is_refused(data: bytes) -> None:
    for read in (components_from_json, findings_from_json):
        with pytest.raises(FormError):
            read(data)


def test_a_field_that_is_not_known_is_named() -> None:
    with pytest.raises(FormError, match="evil"):
        components_from_json(b'[{"ecosystem":"","name":"","version":"","purl":"","evil":1}]')


def test_facts_of_an_unknown_type_are_refused() -> None:
    with pytest.raises(FormError, match="facts"):
        facts_of({"type": "tape", "name": "x", "version": "1"})


def test_what_is_kept_of_a_scan_comes_back() -> None:
    assert scan_facts_of(SCAN.to_json()) == SCAN
    with pytest.raises(JudgingFailed):
        scan_facts_of({"time": 1})
    with pytest.raises(JudgingFailed):
        kept_facts({})


@given(st.integers(0, 2**50), st.integers(1, 2**50))
def test_a_verdict_is_looked_at_before_it_ends_and_not_all_the_time(now: int, life: int) -> None:
    due = renewal(Decision.PASS, now, now + life)
    assert now < due <= now + life
    assert due >= min(now + life, now + SOONEST)
    assert renewal(Decision.FAIL, now, now + life) == NEVER


FACTS = ArtefactFacts(ArtefactType.NPM, "@scope/thing", "1.0")
OWN = Component("npm", "@scope/thing", "1.0", "pkg:npm/%40scope/thing@1.0")


def test_a_package_is_spoken_of_as_the_component_that_it_is() -> None:
    other = Component("npm", "other", "1.0", "pkg:npm/other@1.0")
    assert purl_of(FACTS, [other, OWN], "a" * 64) == OWN.purl
    needed = replace(OWN, scope=Scope.REQUIRED)
    assert purl_of(FACTS, [other, needed], "a" * 64) == "pkg:generic/%40scope%2Fthing@1.0"


def test_a_package_without_a_name_is_spoken_of_by_its_bytes() -> None:
    assert purl_of(ArtefactFacts(ArtefactType.BINARY, "", ""), [], "a" * 64) == f"nih:sha-256;{'a' * 64}"
