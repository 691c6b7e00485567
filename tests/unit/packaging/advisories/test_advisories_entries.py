"""Judging by stored entries is judging by their blocks, however short the way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.packaging.advisories import rows
from controlplane.packaging.advisories.matching import judge, judging
from controlplane.packaging.advisories.records import Affected, Event, Range, Row

TEXTS = st.sampled_from(
    [
        "0",
        "0.9",
        "1.0",
        "1.0rc1",
        "1.0-1.el8",
        "1:0.5-1",
        "1.0-1.el8_1",
        "2.0",
        "2004d-legacy",
        "v1.0.0",
        "",
        "*",
    ]
)
EVENTS = st.lists(st.builds(Event, st.sampled_from(["introduced", "fixed", "last_affected", "limit"]), TEXTS))
SIMPLE = TEXTS.map(lambda text: [Event("introduced", "0"), Event("fixed", text)])
BLOCKS = st.builds(
    lambda events, versions, kind: Affected("X", "foo", ranges=[Range(kind, events)], versions=versions),
    st.one_of(SIMPLE, EVENTS),
    st.one_of(st.just([]), st.lists(TEXTS, max_size=2)),
    st.sampled_from(["ECOSYSTEM", "SEMVER", "GIT"]),
)


@given(
    st.sampled_from(["PyPI", "npm", "Go", "Maven", "Debian:12", "AlmaLinux:8", "Nobody"]),
    TEXTS,
    st.lists(BLOCKS, max_size=2),
)
def test_the_short_way_says_what_the_long_way_says(
    ecosystem: str, version: str, blocks: list[Affected]
) -> None:
    stored = rows.encode(Row(ecosystem, "foo", "X-1", blocks))
    entry = rows.entry(ecosystem, "foo", "X-1", stored)
    assert judging(ecosystem, "foo", version)(entry) == judge(
        ecosystem, version, rows.decode(ecosystem, "foo", stored)
    )


@pytest.mark.parametrize(
    ("blocks", "fix"),
    [
        (
            [
                Affected(
                    "X", "foo", ranges=[Range("ECOSYSTEM", [Event("introduced", "0"), Event("fixed", "1")])]
                )
            ],
            "1",
        ),
        (
            [
                Affected(
                    "X", "foo", ranges=[Range("ECOSYSTEM", [Event("introduced", "1"), Event("fixed", "2")])]
                )
            ],
            "",
        ),
        ([Affected("X", "foo", ranges=[Range("GIT", [Event("introduced", "0"), Event("fixed", "1")])])], ""),
        ([Affected("X", "foo", versions=["1"])], ""),
        ([], ""),
    ],
)
def test_an_entry_knows_whether_it_says_nothing_but_its_fix(blocks: list[Affected], fix: str) -> None:
    assert rows.entry("X", "foo", "X-1", rows.encode(Row("X", "foo", "X-1", blocks))).fix == fix


@pytest.mark.parametrize("stored", [b"[1]", b"[[1]]", b"[[[],[],[]]]", b"nonsense", b'{"a":1}'])
def test_a_damaged_entry_is_refused(stored: bytes) -> None:
    with pytest.raises(rows.EntryError):
        rows.decode("PyPI", "foo", stored)
