"""What Trivy is told, and what is made of its word."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.packaging.advisories.records import Affected, Event, Range, Rating, Record
from controlplane.packaging.advisories.telling import Told
from controlplane.packaging.records import Component, Finding, Severity
from controlplane.packaging.trivy.bolt import PAGE, Bucket, written
from controlplane.packaging.trivy.comparing import joined
from controlplane.packaging.trivy.database import database, said

FOO = Component("PyPI", "Foo_Bar", "0.5", "pkg:pypi/foo-bar@0.5")
CRITICAL = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"


def read(content: bytes) -> dict[bytes, Any]:
    """Read a file of bbolt by its description, from its newest meta page."""
    metas = [struct.unpack_from("<IIIIQQQQQQ", content, PAGE * place + 16) for place in (0, 1)]
    assert all(meta[0] == 0xED0CDAED and meta[1] == 2 and meta[2] == PAGE for meta in metas)
    newest = max(metas, key=lambda meta: meta[8])
    assert newest[7] * PAGE == len(content)
    return _bucket(content, newest[4])


def _bucket(content: bytes, number: int) -> dict[bytes, Any]:
    ident, flags, count, overflow = struct.unpack_from("<QHHI", content, number * PAGE)
    assert (ident, flags) == (number, 0x02)
    found: dict[bytes, Any] = {}
    for place in range(count):
        at = number * PAGE + 16 + 16 * place
        kind, position, of_key, of_value = struct.unpack_from("<IIII", content, at)
        start = at + position
        assert start + of_key + of_value <= (number + overflow + 1) * PAGE
        key, value = content[start : start + of_key], content[start + of_key : start + of_key + of_value]
        found[key] = _bucket(content, struct.unpack("<QQ", value)[0]) if kind else value
    assert list(found) == sorted(found)
    return found


_KEYS = st.binary(min_size=1, max_size=40)
_BUCKETS: st.SearchStrategy[Bucket] = st.recursive(
    st.dictionaries(_KEYS, st.binary(max_size=3_000), max_size=8),
    lambda inner: st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=8,
)


@given(_BUCKETS)
def test_what_is_written_is_what_a_reader_of_the_form_finds(bucket: Bucket) -> None:
    assert read(written(bucket)) == bucket


def test_a_bucket_that_no_page_can_count_is_refused() -> None:
    with pytest.raises(ValueError, match="65535"):
        written({b"%d" % number: b"" for number in range(65_536)})


def told(
    *events: tuple[str, str], listed: Sequence[str] = (), component: Component = FOO, **more: Any
) -> Told:
    ranges = [Range("ECOSYSTEM", [Event(*one) for one in events])] if events else []
    block = Affected(component.ecosystem, component.name, ranges=ranges, versions=listed)
    return Told(component, Record("X-1", 0, **more), [block])


@pytest.mark.parametrize(
    ("events", "constraints"),
    [
        ([("introduced", "0"), ("fixed", "1.0")], ["<1.0"]),
        ([("introduced", "0.4"), ("last_affected", "0.9")], [">=0.4, <=0.9"]),
        ([("introduced", "0")], [""]),
        ([("introduced", "0.4")], [">=0.4"]),
        (
            [("introduced", "0"), ("fixed", "1"), ("introduced", "2"), ("fixed", "3")],
            ["<1", ">=2, <3"],
        ),
    ],
)
def test_ranges_are_said_as_constraints(events: list[tuple[str, str]], constraints: list[str]) -> None:
    assert said(told(*events)) == constraints


@pytest.mark.parametrize(
    "events",
    [
        [("introduced", "0"), ("fixed", "1"), ("fixed", "2")],
        [("fixed", "1"), ("introduced", "0")],
        [("introduced", "0"), ("limit", "2")],
    ],
)
def test_what_needs_more_than_pairs_is_not_asked(events: list[tuple[str, str]]) -> None:
    assert said(told(*events)) is None


def test_of_a_list_of_versions_the_component_s_own_is_said() -> None:
    assert said(told(listed=["0.1", "0.5", "0.9"])) == [">=0.5, <=0.5"]
    assert said(told(listed=["0.1"])) == []


def test_the_database_has_packages_by_the_names_that_are_asked_for() -> None:
    go = Component("Go", "github.com/BurntSushi/toml", "v1.0.0", "pkg:golang/github.com/BurntSushi/toml@v1")
    found = read(database([told(("introduced", "0")), told(("introduced", "0"), component=go)]))
    assert json.loads(found[b"pip::Fleetwright"][b"foo-bar"][b"X-1"]) == {"VulnerableVersions": [""]}
    assert b"github.com/BurntSushi/toml" in found[b"go::Fleetwright"]
    assert set(found[b"data-source"]) == {b"pip::Fleetwright", b"go::Fleetwright"}


def test_two_versions_of_a_package_are_asked_about_together() -> None:
    later = Component("PyPI", "Foo_Bar", "0.6", "pkg:pypi/foo-bar@0.6")
    listed = ["0.5", "0.6"]
    found = read(database([told(listed=listed), told(listed=listed, component=later)]))
    assert json.loads(found[b"pip::Fleetwright"][b"foo-bar"][b"X-1"]) == {
        "VulnerableVersions": [">=0.5, <=0.5", ">=0.6, <=0.6"]
    }


def finding(**more: Any) -> Finding:
    parts: dict[str, Any] = {
        "vulnerability": "X-1",
        "aliases": ("X-1",),
        "component": FOO.purl,
        "severity": Severity.HIGH,
        "severity_source": "",
        "score": None,
        "matched": "",
        "fixed": "1.0",
        "found_by": ("fleetwright",),
        "sources": ("X-1",),
    }
    return Finding(**{**parts, **more})


HIT = frozenset({(FOO.purl, "X-1")})


def test_what_both_find_is_found_by_both() -> None:
    (found,) = joined([finding()], [told(("introduced", "0"))], HIT)
    assert (found.found_by, list(found.disagreements)) == (("fleetwright", "trivy"), [])


def test_what_the_second_engine_does_not_find_is_a_disagreement() -> None:
    (found,) = joined([finding()], [told(("introduced", "0"))], frozenset())
    assert found.found_by == ("fleetwright",)
    assert list(found.disagreements) == ["affected: X-1: fleetwright says so, trivy does not"]


def test_of_what_it_was_not_asked_it_says_nothing() -> None:
    assert joined([finding()], [], frozenset()) == [finding()]


def test_what_it_alone_finds_is_a_finding_with_the_record_s_severity() -> None:
    record = told(("introduced", "0"), aliases=["CVE-2024-1234"], ratings=[Rating("CVSS_V3", CRITICAL)])
    (found,) = joined([], [record], HIT)
    assert (found.vulnerability, found.severity, found.found_by) == (
        "CVE-2024-1234",
        Severity.CRITICAL,
        ("trivy",),
    )
    assert (found.certain, found.sources) == (False, ("X-1",))


def test_another_record_of_a_vulnerability_that_is_known_is_no_second_finding() -> None:
    record = told(("introduced", "0"), aliases=["CVE-2024-1234"])
    known = finding(vulnerability="CVE-2024-1234", aliases=("CVE-2024-1234",), sources=("Y-1",))
    (found,) = joined([known], [record], HIT)
    assert found.found_by == ("fleetwright", "trivy")
    assert list(found.disagreements) == ["affected: X-1: trivy says so, fleetwright does not"]


def test_what_it_was_not_asked_about_it_cannot_add() -> None:
    invented = frozenset({(FOO.purl, "EVIL-1"), ("pkg:pypi/other@1", "X-1")})
    assert joined([], [told(("introduced", "0"))], invented) == []
