"""Reading OSV records: what is kept of a good one, and what is said of a bad one."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.packaging.advisories import osv, rows
from controlplane.packaging.advisories.osv import RecordError, parse
from controlplane.packaging.advisories.records import Event, Rating

MODIFIED = "2024-03-01T12:00:00.123456789Z"
GOOD: dict[str, Any] = {
    "schema_version": "1.6.0",
    "id": "GHSA-aaaa-bbbb-cccc",
    "modified": MODIFIED,
    "published": "2024-02-01T00:00:00+01:00",
    "aliases": ["CVE-2024-0001", "CVE-2024-0001", "GHSA-aaaa-bbbb-cccc"],
    "related": ["CVE-2024-0002"],
    "upstream": ["CVE-2024-0003"],
    "severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}],
    "database_specific": {"severity": "MODERATE"},
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "Foo_Bar", "purl": "pkg:pypi/foo-bar"},
            "ranges": [
                {
                    "type": "ECOSYSTEM",
                    "events": [{"introduced": "0"}, {"fixed": "1.0"}, {"introduced": "2", "fixed": "3"}],
                },
                {
                    "type": "GIT",
                    "repo": "https://example.org/x",
                    "events": [{"introduced": "0"}, {"fixed": "a" * 40}],
                },
            ],
            "versions": ["0.1", "0.2"],
        }
    ],
}


def record(**changes: Any) -> bytes:
    return json.dumps({key: value for key, value in {**GOOD, **changes}.items() if value is not ...}).encode()


def affected(**changes: Any) -> list[Any]:
    return [{**GOOD["affected"][0], **changes}]


def test_a_record_is_kept_with_what_matching_and_merging_need() -> None:
    parsed = parse(record())
    assert (parsed.id, parsed.aliases, parsed.related, parsed.upstream) == (
        "GHSA-aaaa-bbbb-cccc",
        ("CVE-2024-0001",),
        ("CVE-2024-0002",),
        ("CVE-2024-0003",),
    )
    assert parsed.modified == 1_709_294_400_123_456
    assert parsed.published == 1_706_742_000_000_000
    assert parsed.withdrawn is None
    assert parsed.word == "MODERATE"
    assert parsed.ratings == (Rating("CVSS_V3", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"),)
    (block,) = parsed.affected
    assert (block.ecosystem, block.name, block.versions) == ("PyPI", "Foo_Bar", ("0.1", "0.2"))
    assert block.ranges[0].events == (
        Event("introduced", "0"),
        Event("fixed", "1.0"),
        Event("introduced", "2"),
        Event("fixed", "3"),
    )


def test_an_alias_with_a_comma_is_read_and_what_is_none_is_noted() -> None:
    parsed = parse(record(aliases=["CVE-2024-0001,", "see above"]))
    assert parsed.aliases == ("CVE-2024-0001",)
    assert "aliases has 'see above', which is no id" in parsed.notes


def test_a_range_of_commits_is_skipped_with_a_note() -> None:
    parsed = parse(record())
    assert parsed.affected[0].ranges[1].events == ()
    assert parsed.notes == ("a range of type GIT was skipped: its events are no versions",)


def test_an_entry_without_a_package_is_skipped_with_a_note() -> None:
    parsed = parse(record(affected=[{"ranges": []}, *GOOD["affected"]]))
    assert len(parsed.affected) == 1
    assert any("names no package" in note for note in parsed.notes)


def test_the_year_one_of_gos_database_is_read() -> None:
    assert parse(record(modified="0001-01-01T00:00:00Z")).modified < 0


def test_the_severity_of_a_rebuilt_distribution_stands_in_the_title() -> None:
    bare = {"database_specific": ...}
    assert parse(record(summary="Important: bind security update", **bare)).word == "Important"
    assert parse(record(summary="An important matter", **bare)).word == ""


BAD = [
    (b"", "not JSON"),
    (b"\xff\xfe{}", "not JSON"),
    (b'{"id": NaN}', "not JSON"),
    (b'{"id": ' + b"9" * 5_000 + b"}", "not JSON"),
    (b"[" * 100_000, "nested too deep"),
    (b"[]", "must be an object"),
    (b"{}", "id: is a missing value"),
    (record(id=""), "id: has 0 characters"),
    (record(id="../../etc/passwd"), "id: '../../etc/passwd' is no id"),
    (record(id=7), "id: is a int"),
    (record(modified=...), "modified: is a missing value"),
    (record(modified="yesterday"), "modified: 'yesterday' is no instant"),
    (record(modified="2024-02-30T00:00:00Z"), "is no instant"),
    (record(modified="2024-02-03"), "is no instant"),
    (record(withdrawn=True), "withdrawn: is a bool"),
    (record(aliases="CVE-1"), "aliases: is a str, and must be a list"),
    (record(aliases=["ok", 1]), r"aliases\[1\]: is a int"),
    (record(affected={}), "affected: is a dict"),
    (record(affected=[[]]), r"affected\[0\]: is a list"),
    (
        record(affected=affected(package={"name": "x"})),
        r"affected\[0\].package.ecosystem: is a missing value",
    ),
    (record(affected=affected(package={"ecosystem": "PyPI", "name": "a\x00b"})), "control characters"),
    (record(affected=affected(package={"ecosystem": "PyPI", "name": "\ud800"})), "control characters"),
    (record(affected=affected(package={"ecosystem": "PyPI", "name": "x" * 600})), "has 600 characters"),
    (record(affected=affected(versions=[1])), r"affected\[0\].versions\[0\]: is a int"),
    (record(affected=affected(ranges=[{"events": []}])), r"affected\[0\].ranges\[0\].type: is a missing"),
    (
        record(
            affected=affected(ranges=[{"type": "SEMVER", "events": [{"introduced": "0"}, {"fixed": None}]}])
        ),
        r"affected\[0\].ranges\[0\].events\[1\].fixed: is a missing value",
    ),
    (
        record(affected=affected(ranges=[{"type": "SEMVER", "events": [{"since": "1"}]}])),
        r"affected\[0\].ranges\[0\].events\[0\]: has none of introduced",
    ),
    (record(severity=[{"type": "CVSS_V3"}]), r"severity\[0\].score: is a missing"),
    (record(severity=[{"type": "CVSS_V3", "score": "x"}] * 51), "has 51 entries; 50 are allowed"),
]


@pytest.mark.parametrize(("content", "message"), BAD, ids=[message for _, message in BAD])
def test_a_bad_record_is_an_error_that_names_the_field(content: bytes, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        parse(content)


def test_a_record_beyond_its_size_is_refused_before_it_is_read() -> None:
    with pytest.raises(RecordError, match="bytes"):
        parse(b" " * (osv.MAX_RECORD + 1))


_JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(field=st.sampled_from([*GOOD, "withdrawn", "ecosystem_specific"]), value=_JSON)
@settings(max_examples=300, deadline=None)
def test_any_value_in_any_field_is_read_or_refused(field: str, value: Any) -> None:
    with suppress(RecordError):
        parse(record(**{field: value}))


@given(key=st.sampled_from(["package", "ranges", "versions", "severity"]), value=_JSON)
@settings(max_examples=200, deadline=None)
def test_any_value_within_affected_is_read_or_refused(key: str, value: Any) -> None:
    try:
        parsed = parse(record(affected=affected(**{key: value})))
    except RecordError:
        return
    for row in rows.of_record(parsed, "PyPI"):
        assert rows.decode(row.ecosystem, row.name, rows.encode(row))


@given(st.binary(max_size=200))
def test_any_bytes_are_no_record(content: bytes) -> None:
    with pytest.raises(RecordError):
        parse(content)


def test_rows_are_of_one_ecosystem_and_by_normalised_name() -> None:
    other = {"package": {"ecosystem": "npm", "name": "foo"}, "versions": ["1"]}
    parsed = parse(record(affected=[*GOOD["affected"], other, *affected(versions=["1.0.0"], ranges=[])]))
    (row,) = rows.of_record(parsed, "PyPI")
    assert (row.ecosystem, row.name, row.advisory) == ("PyPI", "foo-bar", "GHSA-aaaa-bbbb-cccc")
    blocks = rows.decode(row.ecosystem, row.name, rows.encode(row))
    assert [block.versions for block in blocks] == [["0.1", "0.2"], ["1"]]
    assert blocks[0].ranges[0].events[0] == Event("introduced", "0")


def test_a_withdrawn_record_has_no_rows() -> None:
    assert rows.of_record(parse(record(withdrawn=MODIFIED)), "PyPI") == []


def test_a_long_row_is_kept_compressed() -> None:
    many = [f"1.{number}" for number in range(1, 2_000)]
    (row,) = rows.of_record(parse(record(affected=affected(versions=many))), "PyPI")
    stored = rows.encode(row)
    assert len(stored) < 8_000
    assert rows.decode("PyPI", "foo-bar", stored)[0].versions == many


def test_a_brief_keeps_names_and_severities() -> None:
    parsed = parse(record(affected=affected(severity=[{"type": "CVSS_V2", "score": "AV:N"}])))
    brief = rows.decode_brief(parsed.id, parsed.modified, None, rows.encode_brief(parsed))
    assert (brief.ids, list(brief.upstream)) == (parsed.ids, ["CVE-2024-0003"])
    assert (list(brief.ratings), brief.word) == (list(parsed.ratings), "MODERATE")
    assert brief.affected[0].ratings == [Rating("CVSS_V2", "AV:N")]


@pytest.mark.parametrize("stored", [b"", b"[", b"[[1]]", b"x\x9c", b'[[[["SEMVER","9","1"]],[]]]', b"\x00"])
def test_a_damaged_row_is_an_error(stored: bytes) -> None:
    with pytest.raises(rows.EntryError, match="cannot be read"):
        rows.decode("PyPI", "foo", stored)
    with pytest.raises(rows.EntryError, match="cannot be read"):
        rows.decode_brief("X-1", 0, None, stored)
