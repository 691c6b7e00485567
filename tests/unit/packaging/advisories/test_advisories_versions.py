"""The order of versions: what the ecosystems' own rules say of tricky pairs, and that it is an order."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.packaging.advisories.versions import (
    UnknownEcosystemError,
    VersionError,
    certain,
    compare,
    is_known,
    key,
    spelling,
)

RISING: dict[str, Sequence[Sequence[str]]] = {
    "PyPI": [
        # A legacy version stands below every other one, and words stand below numbers there.
        ["foobar", "0.1-bulbasaur", "0.9-doduo", "2004d", "0.0.dev0"],
        [
            "1.0.dev1",
            "1.0a1.dev2",
            "1.0a1",
            "1.0b1",
            "1.0rc1",
            "1.0",
            "1.0+abc",
            "1.0+1",
            "1.0.post1",
            "1.1.dev1",
        ],
        ["1.9", "1.10", "2!0.1"],
    ],
    "npm": [
        ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11"],
        ["1.0.0-1", "1.0.0-a", "1.0.0", "1.0.1-0", "1.0.1"],
        ["1.2.3-R2", "1.2.3-r100", "1.2.3-r2"],
        ["999999999999999999999999999991.0.0", "999999999999999999999999999999.0.0"],
        ["1.2", "1.2.1", "1.10"],
    ],
    "Go": [
        [
            "v0.0.0-20180101000000-abcdef123456",
            "v0.0.0-20190101000000-abcdef123456",
            "v0.0.1-0.20190101000000-aa",
        ],
        ["v1.0.0-rc.1", "1.0.0", "v1.0.1+incompatible", "v2.0.0+incompatible"],
        ["go1.20beta1", "1.20rc2", "1.20.0", "go1.20.1", "go1.21rc2", "go1.21"],
    ],
    "Maven": [
        [
            "1-alpha2snapshot",
            "1-alpha2",
            "1-alpha-123",
            "1-beta-2",
            "1-m2",
            "1-rc",
            "1-cr2",
            "1-SNAPSHOT",
            "1",
        ],
        ["1", "1-sp", "1-sp2", "1-abc", "1-pom-1", "1-1-snapshot", "1-1", "1-2", "1-123"],
        [
            "2.0",
            "2.0.a",
            "2-1",
            "2.0.2",
            "2.0.123",
            "2.1.0",
            "2.1-a",
            "2.1b",
            "2.1-1",
            "2.1.0.1",
            "2.2",
            "2.123",
        ],
        ["11.a2", "11.a11", "11.b2", "11.m2", "11", "11.a", "11b", "11m"],
        ["6.1.0rc3", "6.1.0", "6.1H.5-beta"],
        [
            "20190126.230843",
            "1234567890.12345",
            "123456789012345.1H.5-beta",
            "12345678901234567890.1H.5-beta",
        ],
        ["1-0.alpha", "1-0.beta", "1"],
        ["1.0.final-redhat", "1.0-sp1-redhat"],
        ["1.0.0.RC1", "1.0.0-RC2", "1.0.0"],
        ["2.9.10", "2.9.10.1", "2.9.11", "2.10.0", "2.10.0.pr1", "2.10.1"],
    ],
    "Debian": [
        [
            "1.0~~",
            "1.0~rc1-1",
            "1.0~rc1-2",
            "1.0",
            "1.0-0a",
            "1.0-1~deb12u1",
            "1.0-1",
            "1.0-1+b1",
            "1.0a",
            "1.0+b",
        ],
        ["2.7.4+reloaded2-13ubuntu1", "2.7.4+reloaded2-13+deb9u1"],
        ["0foo0bar-1", "0foobar-01", "0foo.bar-1"],
        ["1a", "1.2", "1.10", "1000a", "1:0.1", "2:0"],
        ["1.2.3-1", "1.2.3-1.1", "1.2.3-10"],
    ],
    "AlmaLinux:9": [
        [
            "1.0~rc1~git1",
            "1.0~rc1",
            "1.0~rc1^git1",
            "1.0",
            "1.0^git1~pre",
            "1.0^git1",
            "1.0^git2",
            "1.0a",
            "1.0.1",
        ],
        ["1b.fc17", "1.fc17", "1g.fc17"],
        ["1", "1-", "1-0", "1-0.el8", "1-1.el8", "1-1.el8_9", "1-1.el8_10", "1-2", "1:0"],
        ["xyz.4", "2", "10xyz", "10.1xyz"],
        ["2.4.21-9.EL", "2.4.21-9.0.1.EL"],
        ["6.0", "6.0.rc1"],
        ["2.8.5-11.module_el8.4.0+2249+3ddf2832", "2.8.5-11.module_el8.5.0+71+8f3a675d"],
    ],
}

EQUAL: dict[str, Sequence[Sequence[str]]] = {
    "PyPI": [
        ["1", "1.0", "1.0.0", "v1.0"],
        ["1.0-1", "1.0.post1", "1.0-post-1"],
        ["1.0RC1", "1.0c1", "1.0-rc.1"],
    ],
    "npm": [
        ["1.2.3", "v1.2.3", "=1.2.3", " = v1.2.3 ", "1.2.3+build.7"],
        ["1.2", "1.2.0"],
        ["1.2.3beta", "1.2.3-beta"],
    ],
    "Go": [
        ["v1.2.3", "1.2.3", "v1.2.3+incompatible"],
        ["v1.2", "1.2.0"],
        ["go1.20", "1.20.0"],
        ["1.20rc1", "1.20.0-rc.1"],
    ],
    "Maven": [
        ["1", "1.0", "1.0.0", "1-0", "1.0-0", "01", "1ga", "1-final", "1.RELEASE", "1.", "1-"],
        ["1a1", "1-alpha-1", "1.ALPHA1"],
        ["1x", "1.x", "1-x", "1.0.0-X"],
        ["1cr", "1-rc", "1.0.Cr"],
        ["1-foo", "1.0.0-foo.0.0"],
        ["0000000000000000000", "0"],
    ],
    "Debian": [["1.0", "1.00", "0:1.0", "1.0-0", "1.0-00"], ["0a", "0a0"]],
    "AlmaLinux": [
        ["2.0", "2_0", "2..0", "0:2.0"],
        ["10.0001", "10.1"],
        ["1.1.ä", "1.1.öö", "1.1"],
        ["+", "_"],
        ["1-1.", "1-1"],
    ],
}

NO_VERSIONS = {
    "PyPI": ["", "  ", "1 0", "1\x00", "1" * 257],
    "npm": [
        "",
        "abc",
        "1.x",
        "*",
        "1..2",
        "1.2.3-",
        "1.2.3-a..b",
        "1.0.0-alpha_beta",
        "latest",
        "1.2.3 || 2",
    ],
    "Go": ["", "(devel)", "bad", "v1-pre", "v1.2+meta", "v01.2.3", "v1.2.3.4", "v1.2.3-01", "devel go1.20"],
    "Maven": ["", "1" * 257, "1 2"],
    "Debian": [
        "",
        "0:",
        "-1:0-1",
        "a:0-0",
        "999999999999999999999999:0-1",
        "-0",
        "0:-0",
        "1.0-",
        "<unfixed>",
        "1_0",
        "1.0 1",
    ],
    "Red Hat": ["", ":", "-1", "1:", "1 0"],
}


def pairs(chains: dict[str, Sequence[Sequence[str]]]) -> list[tuple[str, str, str]]:
    return [
        (ecosystem, low, high)
        for ecosystem, rows in chains.items()
        for row in rows
        for low, high in itertools.combinations(row, 2)
    ]


@pytest.mark.parametrize(("ecosystem", "low", "high"), pairs(RISING))
def test_a_version_stands_below_the_next(ecosystem: str, low: str, high: str) -> None:
    assert compare(ecosystem, low, high) == -1
    assert compare(ecosystem, high, low) == 1


@pytest.mark.parametrize(("ecosystem", "one", "other"), pairs(EQUAL))
def test_spellings_of_one_version_are_equal(ecosystem: str, one: str, other: str) -> None:
    assert compare(ecosystem, one, other) == compare(ecosystem, other, one) == 0


@pytest.mark.parametrize(
    ("ecosystem", "text"), [(ecosystem, text) for ecosystem, texts in NO_VERSIONS.items() for text in texts]
)
def test_what_is_no_version_is_an_error_that_says_so(ecosystem: str, text: str) -> None:
    with pytest.raises(VersionError, match="version"):
        compare(ecosystem, text, "1.0")


def test_an_ecosystem_without_rules_is_an_error_of_its_own() -> None:
    assert not is_known("Hackage")
    assert is_known("Debian:12")
    with pytest.raises(UnknownEcosystemError, match="Hackage"):
        compare("Hackage", "1", "2")


def test_a_legacy_version_of_pypi_has_no_certain_place() -> None:
    assert not certain("PyPI", "2004d")
    assert certain("PyPI", "2004.4")
    assert certain("Maven", "2004d")


def test_listed_versions_are_looked_up_by_one_spelling() -> None:
    assert spelling("PyPI", "v1.0.0-RC1") == spelling("PyPI", "1rc1")
    assert spelling("PyPI", "not a version") == "not a version"
    assert spelling("Go", "v1.0.0") == "1.0.0"
    assert spelling("Debian:12", " 1.0-1 ") == "1.0-1"


_WORDS = [
    "a",
    "b",
    "rc",
    "alpha",
    "beta",
    "m",
    "ga",
    "sp",
    "final",
    "snapshot",
    "x",
    "el8",
    "git",
    "dev",
    "post",
]
_PARTS = st.sampled_from(["0", "1", "2", "10", "01", *_WORDS, *[f"{word}1" for word in _WORDS]])
_JOINTS = {
    "PyPI": ["."], "npm": ["."], "Go": ["."], "Maven": [".", "-"], "Debian": [".", "+", "~", ""],
    "AlmaLinux": [".", "_", "~", "^", "+"],
}  # fmt: skip


@st.composite
def versions(draw: st.DrawFn, ecosystem: str) -> str:
    """Return a version as publishers write them, odd ones among them."""
    if ecosystem in ("npm", "Go"):
        numbers = ".".join(str(draw(st.integers(0, 3))) for _ in range(3))
        identifiers = st.sampled_from(["0", "1", "10", "a", "rc", "-", "x-1", "A"])
        return numbers + draw(st.one_of(st.just(""), st.lists(identifiers, min_size=1, max_size=3).map(
            lambda some: "-" + ".".join(some))))  # fmt: skip
    first = str(draw(st.integers(0, 3)))
    for part in draw(st.lists(_PARTS, max_size=3)):
        first += draw(st.sampled_from(_JOINTS[ecosystem])) + part
    if ecosystem in ("Debian", "AlmaLinux"):
        first = (
            draw(st.sampled_from(["", "0:", "1:"])) + first + draw(st.sampled_from(["", "-0", "-1", "-1.a"]))
        )
    return first


@pytest.mark.parametrize("ecosystem", ["PyPI", "npm", "Go", "Debian", "AlmaLinux"])
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_the_order_is_total(ecosystem: str, data: st.DataObject) -> None:
    a, b, c = (data.draw(versions(ecosystem)) for _ in range(3))
    assert compare(ecosystem, a, a) == 0
    assert compare(ecosystem, a, b) == -compare(ecosystem, b, a)
    low, middle, high = sorted((a, b, c), key=lambda text: key(ecosystem, text))
    assert compare(ecosystem, low, middle) <= 0
    assert compare(ecosystem, middle, high) <= 0
    assert compare(ecosystem, low, high) <= 0
    if compare(ecosystem, a, b) == 0:
        assert compare(ecosystem, a, c) == compare(ecosystem, b, c)


@given(a=versions("Maven"), b=versions("Maven"))
@settings(max_examples=300, deadline=None)
def test_the_order_of_maven_is_the_same_from_both_sides(a: str, b: str) -> None:
    """Maven's own rules are not transitive for every odd text; what they say of a pair is without doubt."""
    assert compare("Maven", a, a) == 0
    assert compare("Maven", a, b) == -compare("Maven", b, a)


@pytest.mark.parametrize("ecosystem", ["PyPI", "npm", "Go", "Maven", "Debian", "AlmaLinux"])
@given(a=st.text(max_size=40), b=st.text(max_size=300))
@settings(max_examples=150, deadline=None)
def test_any_text_is_compared_or_refused(ecosystem: str, a: str, b: str) -> None:
    with suppress(VersionError):
        assert compare(ecosystem, a, b) == -compare(ecosystem, b, a)


def test_the_longest_version_takes_no_time_and_no_depth() -> None:
    for ecosystem in ("PyPI", "npm", "Go", "Maven", "Debian", "RPM"):
        for text in ("1-" * 127 + "1", "1" * 256, "1." * 127 + "x", "a1" * 128, "-1" * 127):
            try:
                compare(ecosystem, text, text + "")
                compare(ecosystem, text, "1.0")
            except VersionError:
                continue


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="needs dpkg, to compare with")
def test_debian_versions_are_ordered_as_dpkg_orders_them() -> None:
    known = sorted({text for row in (*RISING["Debian"], *EQUAL["Debian"]) for text in row})
    for a, b in itertools.combinations(known[:18], 2):
        operator = {-1: "lt", 0: "eq", 1: "gt"}[compare("Debian", a, b)]
        assert subprocess.run(["dpkg", "--compare-versions", a, operator, b]).returncode == 0, (a, b)
