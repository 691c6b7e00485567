"""Severities with their source, and the merging of records of one vulnerability."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.packaging.advisories.aliases import Groups, Hit, leading, merge
from controlplane.packaging.advisories.matching import Outcome, Verdict
from controlplane.packaging.advisories.records import UNRATED, Affected, Rated, Rating, Record
from controlplane.packaging.advisories.severity import of_vector, rate
from controlplane.packaging.records import Component, Severity

V2 = Rating("CVSS_V2", "AV:N/AC:L/Au:N/C:P/I:P/A:P")
V3 = Rating("CVSS_V3", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H")
V4 = Rating("CVSS_V4", "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:L/VI:N/VA:N/SC:N/SI:N/SA:N")
COMPONENT = Component("PyPI", "foo", "1.0", "pkg:pypi/foo@1.0")


@pytest.mark.parametrize(
    ("vector", "rated"),
    [
        (V2.score, Rated(Severity.HIGH, "CVSS:2.0", 7.5)),
        (f"({V2.score})", Rated(Severity.HIGH, "CVSS:2.0", 7.5)),
        (V3.score, Rated(Severity.CRITICAL, "CVSS:3.1", 9.8)),
        (V3.score.replace("3.1", "3.0"), Rated(Severity.CRITICAL, "CVSS:3.0", 9.8)),
        (V4.score, Rated(Severity.MEDIUM, "CVSS:4.0", 6.9)),
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:N", Rated(Severity.LOW, "CVSS:3.1", 0.0)),
    ],
)
def test_a_vector_is_rated_with_its_version(vector: str, rated: Rated) -> None:
    assert of_vector(vector) == rated


@pytest.mark.parametrize(
    "vector", ["", "9.8", "CVSS:3.1", "CVSS:3.1/AV:X", "CVSS:4.0/", "CVSS:9/AV:N", "A" * 300]
)
def test_what_is_no_vector_is_not_rated(vector: str) -> None:
    assert of_vector(vector) is None


@given(st.text(alphabet="CVSS:3.104/AVNLPRUISH()", max_size=60))
def test_any_text_is_rated_or_not(vector: str) -> None:
    of_vector(vector)
    of_vector(f"CVSS:3.1/{vector}")
    of_vector(f"CVSS:4.0/{vector}")


def test_a_vector_of_the_package_stands_before_one_of_the_record() -> None:
    record = Record("GHSA-1", 0, ratings=[V3])
    assert rate(record, [Affected("PyPI", "foo", ratings=[V2])]).source == "CVSS:2.0 of GHSA-1"
    assert rate(record) == Rated(Severity.CRITICAL, "CVSS:3.1 of GHSA-1", 9.8)


def test_the_newest_cvss_of_a_record_counts() -> None:
    assert rate(Record("GHSA-1", 0, ratings=[V2, V3, V4])).source == "CVSS:4.0 of GHSA-1"
    broken = Rating("CVSS_V4", "CVSS:4.0/nonsense")
    assert rate(Record("GHSA-1", 0, ratings=[broken, V3])).source == "CVSS:3.1 of GHSA-1"


def test_a_record_without_a_vector_is_rated_through_its_aliases() -> None:
    bare, alias = Record("PYSEC-1", 0), Record("GHSA-1", 0, ratings=[V3])
    assert rate(bare, through=[alias]) == Rated(Severity.CRITICAL, "CVSS:3.1 of GHSA-1", 9.8)
    assert rate(bare, through=[Record("GHSA-2", 0, word="MODERATE")]).source == '"MODERATE" of GHSA-2'


@pytest.mark.parametrize(
    ("word", "severity"),
    [
        ("MODERATE", Severity.MEDIUM),
        ("Important", Severity.HIGH),
        ("critical", Severity.CRITICAL),
        ("unimportant", Severity.LOW),
        ("not yet assigned", Severity.UNKNOWN),
        ("", Severity.UNKNOWN),
    ],
)
def test_a_databases_word_counts_where_there_is_no_vector(word: str, severity: Severity) -> None:
    assert rate(Record("X-1", 0, word=word)).severity is severity
    assert rate(Record("X-1", 0, word=word, ratings=[V3])).severity is Severity.CRITICAL


def test_a_word_in_the_place_of_a_vector_counts_as_a_word() -> None:
    assert rate(Record("UBUNTU-1", 0, ratings=[Rating("Ubuntu", "medium")])).severity is Severity.MEDIUM


def test_nothing_said_is_unknown_and_has_no_source() -> None:
    assert rate(Record("X-1", 0)) == UNRATED == Rated(Severity.UNKNOWN, "", None)


def hit(identifier: str, *aliases: str, fixed: str = "", rated: Rated = UNRATED, **changes: Any) -> Hit:
    outcome = changes.pop("outcome", Outcome.AFFECTED)
    return Hit(
        Record(identifier, 0, aliases=aliases), Verdict(outcome, f"words of {identifier}", fixed), rated
    )


def test_records_of_one_vulnerability_are_one_finding_that_keeps_its_sources() -> None:
    hits = [hit("PYSEC-1", "CVE-2024-1234"), hit("GHSA-1", "CVE-2024-1234"), hit("GO-2", "CVE-2024-9999")]
    one, other = merge(COMPONENT, hits)
    assert (one.vulnerability, one.sources) == ("CVE-2024-1234", ("GHSA-1", "PYSEC-1"))
    assert one.aliases == ("CVE-2024-1234", "GHSA-1", "PYSEC-1")
    assert one.matched == "GHSA-1: words of GHSA-1; PYSEC-1: words of PYSEC-1"
    assert (one.component, one.found_by, one.state, one.certain) == (
        COMPONENT.purl,
        ("fleetwright",),
        "affected",
        True,
    )
    assert (other.vulnerability, other.disagreements) == ("CVE-2024-9999", ())


def test_aliases_join_over_a_third_record() -> None:
    hits = [hit("A-1", "B-1"), hit("C-1", "D-1"), hit("E-1", "B-1", "D-1")]
    (found,) = merge(COMPONENT, hits)
    assert found.vulnerability == "A-1"
    assert len(found.aliases) == 5


def test_related_is_no_alias() -> None:
    related = Hit(Record("ALSA-1", 0, related=["CVE-2024-1234"]), Verdict(Outcome.AFFECTED, "x"))
    assert [one.vulnerability for one in merge(COMPONENT, [related, hit("CVE-2024-1234")])] == [
        "ALSA-1",
        "CVE-2024-1234",
    ]


def test_the_oldest_cve_leads() -> None:
    assert leading(["GHSA-1", "CVE-2024-10000", "CVE-2024-9999", "CVE-2023-20000"]) == "CVE-2023-20000"
    assert leading(["GHSA-1", "A-1"]) == "GHSA-1"


def test_a_merged_finding_has_the_worst_severity_and_the_highest_fix_and_says_what_differs() -> None:
    high, low = Rated(Severity.HIGH, "CVSS:3.1 of GHSA-1", 8.0), Rated(Severity.LOW, '"LOW" of PYSEC-1', None)
    (found,) = merge(
        COMPONENT,
        [
            hit("PYSEC-1", "GHSA-1", fixed="1.9", rated=low),
            hit("GHSA-1", fixed="1.10", rated=high),
            hit("X-1", "GHSA-1"),
        ],
        [hit("GO-1", "GHSA-1", outcome=Outcome.NOT_AFFECTED)],
    )
    assert (found.severity, found.severity_source, found.score, found.fixed) == (*high[:2], 8.0, "1.10")
    assert found.disagreements == (
        "fixed: GHSA-1 says 1.10, PYSEC-1 says 1.9, X-1 says none known",
        "severity: GHSA-1 says high, PYSEC-1 says low",
        "affected: GHSA-1 says affected, GO-1 says not affected, PYSEC-1 says affected, X-1 says affected",
    )
    assert found.sources == ("GHSA-1", "PYSEC-1", "X-1")
    assert "GO-1" in found.aliases


def test_a_finding_that_nobody_could_compare_is_not_certain() -> None:
    unsure = hit("X-1", "Y-1", outcome=Outcome.UNDECIDED)
    assert not merge(COMPONENT, [unsure])[0].certain
    (both,) = merge(COMPONENT, [unsure, hit("Y-1")])
    assert both.certain
    assert any("could not compare" in text for text in both.disagreements)


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=3), max_size=8), st.randoms())
def test_groups_do_not_depend_on_the_order_in_which_they_are_told(rows: list[list[str]], random: Any) -> None:
    def grouped(some: list[list[str]]) -> set[frozenset[str]]:
        groups = Groups()
        found: dict[str, set[str]] = {}
        for row in some:
            groups.join(row)
        for one in "abcdefgh":
            found.setdefault(groups.of(one), set()).add(one)
        return {frozenset(one) for one in found.values()}

    shuffled = list(rows)
    random.shuffle(shuffled)
    assert grouped(rows) == grouped(shuffled)
