"""Whether a version falls into a record: every kind of event, and what cannot be compared."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.packaging.advisories.matching import Outcome, Verdict, judge, match
from controlplane.packaging.advisories.records import Affected, Event, Range, Record
from controlplane.packaging.advisories.versions import compare

AFFECTED, CLEAN, UNDECIDED = Outcome.AFFECTED, Outcome.NOT_AFFECTED, Outcome.UNDECIDED


def events(*pairs: str, kind: str = "ECOSYSTEM") -> Range:
    """Return a range of "introduced 0", "fixed 1.0" and so on."""
    return Range(kind, tuple(Event(*pair.split(" ", 1)) for pair in pairs))


def block(
    *ranges: Range, versions: tuple[str, ...] = (), ecosystem: str = "PyPI", name: str = "foo"
) -> Affected:
    return Affected(ecosystem, name, ranges=ranges, versions=versions)


def verdict(version: str, *blocks: Affected, ecosystem: str = "PyPI") -> Verdict:
    return judge(ecosystem, version, blocks)


def outcomes(versions: str, *blocks: Affected, ecosystem: str = "PyPI") -> list[bool]:
    return [verdict(one, *blocks, ecosystem=ecosystem).outcome is AFFECTED for one in versions.split()]


def test_introduced_0_is_below_every_version() -> None:
    one = block(events("introduced 0", "fixed 1.0"))
    assert outcomes("0a0 0.dev0 0 0.9 1.0rc1 1.0 2", one) == [True, True, True, True, True, False, False]
    beta = block(events("introduced 0", "fixed 1.0.0", kind="SEMVER"), ecosystem="npm")
    assert outcomes("0.0.0-alpha 1.0.0-rc.1 1.0.0", beta, ecosystem="npm") == [True, True, False]


def test_any_other_introduced_is_the_version_itself() -> None:
    assert outcomes("1.0rc1 1.0 1.5", block(events("introduced 1.0"))) == [False, True, True]


def test_the_words_name_the_event_that_decided() -> None:
    found = verdict("1.1", block(events("introduced 0", "fixed 0.5", "introduced 1.0", "fixed 1.2")))
    assert found == Verdict(AFFECTED, "introduced 1.0, before fixed 1.2", "1.2")
    assert verdict("1.1", block(events("introduced 0"))).words == (
        "from the first version on (introduced 0), no fix known"
    )
    assert verdict("1.1", block(versions=("1.1",))).words == "version 1.1 is listed"


def test_events_are_sorted_before_they_are_read() -> None:
    one = block(events("fixed 2.0", "introduced 1.0", "fixed 10.0", "introduced 3.0"))
    assert outcomes("0.9 1.0 2.0 3.0 9.9 10.0", one) == [False, True, False, True, True, False]


def test_of_consecutive_fixed_events_the_lowest_ends_the_range() -> None:
    one = block(events("introduced 0", "fixed 1.2.5", "fixed 1.3.1"))
    assert outcomes("1.2.4 1.2.5 1.3.0 1.3.1", one) == [True, False, False, False]
    assert verdict("1.0", one).fixed == "1.2.5"


def test_what_is_fixed_and_introduced_again_at_one_version_is_affected() -> None:
    one = block(events("introduced 0", "fixed 1.0", "introduced 1.0", "fixed 2.0"))
    assert outcomes("0.9 1.0 2.0", one) == [True, True, False]
    assert verdict("0.9", one).fixed == "2.0"
    assert outcomes("1.0", block(events("introduced 1.0", "fixed 1.0"))) == [False]


def test_last_affected_is_affected() -> None:
    one = block(events("introduced 1.0", "last_affected 1.5"))
    assert outcomes("0.9 1.0 1.5 1.5.post1 1.6", one) == [False, True, True, False, False]
    found = verdict("1.2", one)
    assert (found.words, found.fixed) == ("introduced 1.0, up to last_affected 1.5", "")


def test_a_limit_bounds_what_is_looked_at() -> None:
    one = block(events("introduced 1.0", "limit 2.0"))
    assert outcomes("0.9 1.0 1.9 2.0 3.0", one) == [False, True, True, False, False]
    assert outcomes("5", block(events("introduced 1.0", "limit *"))) == [True]


def test_a_list_of_versions_alone_decides() -> None:
    one = block(versions=("1", "1.1rc1"))
    assert outcomes("1.0.0 v1 1.1-RC.1 1.1 1.2", one) == [True, True, True, False, False]


def test_a_version_is_listed_though_no_range_has_it() -> None:
    assert outcomes("3", block(events("introduced 0", "fixed 1.0"), versions=("3",))) == [True]


def test_several_blocks_of_one_package_are_all_asked_and_so_is_the_fix() -> None:
    blocks = [
        block(events("introduced 0", f"fixed 2.8-11.module_el8.{minor}.0+1"), ecosystem="AlmaLinux:8")
        for minor in (5, 4, 3)
    ]
    assert verdict("2.8-11.module_el8.4.0+1", *blocks, ecosystem="AlmaLinux:8").outcome is AFFECTED
    assert verdict("2.8-1", *blocks, ecosystem="AlmaLinux:8").fixed == "2.8-11.module_el8.5.0+1"


def test_a_withdrawn_record_affects_nothing() -> None:
    record = Record("X-1", 0, affected=[block(events("introduced 0"))])
    assert match(record, "PyPI", "foo", "1").outcome is AFFECTED
    assert match(Record("X-1", 0, withdrawn=1, affected=record.affected), "PyPI", "foo", "1").outcome is CLEAN


@pytest.mark.parametrize(
    ("own", "other", "ecosystem", "same"),
    [
        ("Foo.Bar_baz", "foo-bar-baz", "PyPI", True),
        ("Foo", "foo", "npm", False),
        ("github.com/Azure/x", "github.com/azure/x", "Go", True),
        ("org.a:b", "org.a/b", "Maven", True),
        ("Foo", "foo", "Maven", False),
    ],
)
def test_names_are_normalised_as_the_ecosystem_does(own: str, other: str, ecosystem: str, same: bool) -> None:
    record = Record("X-1", 0, affected=[block(events("introduced 0"), ecosystem=ecosystem, name=own)])
    assert (match(record, ecosystem, other, "1.0.0").outcome is AFFECTED) == same


@pytest.mark.parametrize(
    ("recorded", "asked", "same"),
    [
        ("AlmaLinux:8", "AlmaLinux:8", True),
        ("AlmaLinux:8", "AlmaLinux:9", False),
        ("AlmaLinux:8", "AlmaLinux:8.9", True),
        ("Debian:12", "Debian", True),
        ("Debian", "Debian:12", True),
        ("Debian:12", "Ubuntu:12", False),
        ("Ubuntu:22.04:LTS", "Ubuntu:22.04", True),
    ],
)
def test_a_record_speaks_of_its_release(recorded: str, asked: str, same: bool) -> None:
    record = Record("X-1", 0, affected=[block(events("introduced 0"), ecosystem=recorded)])
    assert (match(record, asked, "foo", "1.0-1").outcome is AFFECTED) == same


@pytest.mark.parametrize(
    ("version", "ecosystem", "found"),
    [
        ("(devel)", "Go", block(events("introduced 0", "fixed 1.0.0"), ecosystem="Go")),
        ("1.0.0", "npm", block(events("introduced 0", "fixed latest"), ecosystem="npm")),
        ("1.0", "PyPI", block(Range("GIT", ()))),
        ("1.0", "PyPI", block()),
        ("1.0", "PyPI", block(events("fixed 2.0"))),
        ("1.0", "PyPI", block(Range("NEW", ()))),
        ("2004d", "PyPI", block(events("introduced 1.0", "fixed 2.0"))),
        ("3.0", "PyPI", block(events("introduced 0", "fixed 2004d"))),
        ("1.0", "Hackage", block(events("introduced 0"), ecosystem="Hackage")),
        ("", "PyPI", block(events("introduced 1.0"))),
    ],
)
def test_what_cannot_be_compared_is_said_and_never_clean(
    version: str, ecosystem: str, found: Affected
) -> None:
    judged = verdict(version, found, ecosystem=ecosystem)
    assert judged.outcome is UNDECIDED
    assert judged.words.startswith("could not compare: ")


def test_a_version_without_order_is_affected_where_it_is_listed_or_all_are() -> None:
    assert (
        verdict("(devel)", block(versions=("(devel)",), ecosystem="Go"), ecosystem="Go").outcome is AFFECTED
    )
    assert (
        verdict("(devel)", block(events("introduced 0"), ecosystem="Go"), ecosystem="Go").outcome is AFFECTED
    )


def test_an_open_limit_of_another_kind_is_no_version() -> None:
    assert verdict("1.0", block(events("introduced 0", "fixed *"))).outcome is UNDECIDED


_NUMBERS = st.integers(0, 12).map(str)
_EVENTS = st.lists(st.tuples(st.sampled_from(["introduced", "fixed", "last_affected"]), _NUMBERS), min_size=1)


@given(given_events=_EVENTS, version=_NUMBERS)
def test_a_verdict_is_that_of_the_schemas_own_algorithm(
    given_events: list[tuple[str, str]], version: str
) -> None:
    vulnerable: Any = False
    for kind, text in sorted(given_events, key=lambda one: -1 if one == ("introduced", "0") else int(one[1])):
        if kind == "introduced" and int(version) >= int(text):
            vulnerable = True
        elif (kind == "fixed" and int(version) >= int(text)) or (
            kind == "last_affected" and int(version) > int(text)
        ):
            vulnerable = False
    found = verdict(version, block(Range("ECOSYSTEM", tuple(Event(*one) for one in given_events))))
    begins = any(kind == "introduced" for kind, _ in given_events)
    assert found.outcome is ((AFFECTED if vulnerable else CLEAN) if begins else UNDECIDED)
    if found.fixed:
        assert compare("PyPI", found.fixed, version) > 0
        again = verdict(found.fixed, block(Range("ECOSYSTEM", tuple(Event(*one) for one in given_events))))
        assert again.outcome is not AFFECTED
