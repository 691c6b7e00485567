"""The file that Trivy reads its advisories from."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.packaging.advisories.engines import bolt
from controlplane.packaging.advisories.engines.bolt import PAGE, BoltError, write

Read = dict[bytes, "bytes | Read"]
KEYS = st.binary(min_size=1, max_size=40)
VALUES = st.one_of(st.binary(max_size=200), st.integers(0, 20_000).map(bytes))
BUCKETS = st.recursive(
    st.dictionaries(KEYS, VALUES, max_size=30),
    lambda inner: st.dictionaries(KEYS, st.one_of(VALUES, inner), max_size=30),
    max_leaves=5,
)


def read(content: bytes) -> Read:
    """Return the buckets of a file, as bbolt's own reader walks it: by the later of both meta pages."""
    metas = [struct.unpack_from("<IIIIQQQQQ", content, number * PAGE + 16) for number in (0, 1)]
    assert all(meta[:3] == (0xED0CDAED, 2, PAGE) for meta in metas)
    assert metas[0][7] == len(content) // PAGE
    return _bucket(content, max(metas, key=lambda meta: meta[8])[4])


def _bucket(content: bytes, page: int) -> Read:
    number, kind, count, further = struct.unpack_from("<QHHI", content, page * PAGE)
    assert number == page
    body = content[page * PAGE : (page + 1 + further) * PAGE]
    return _elements(content, body, kind, count)


def _elements(content: bytes, body: bytes, kind: int, count: int) -> Read:
    found: Read = {}
    if kind == 0x01:
        for number in range(count):
            distance, length, page = struct.unpack_from("<IIQ", body, 16 + number * 16)
            start = 16 + number * 16 + distance
            below = _bucket(content, page)
            assert min(below) == body[start : start + length]
            found |= below
        return found
    assert kind == 0x02
    for number in range(count):
        flags, distance, of_key, of_value = struct.unpack_from("<IIII", body, 16 + number * 16)
        start = 16 + number * 16 + distance
        key, value = body[start : start + of_key], body[start + of_key : start + of_key + of_value]
        found[key] = _nested(content, value) if flags else value
    assert list(found) == sorted(found)
    return found


def _nested(content: bytes, value: bytes) -> Read:
    page, _ = struct.unpack_from("<QQ", value)
    if page:
        return _bucket(content, page)
    _, kind, count, _ = struct.unpack_from("<QHHI", value, 16)
    return _elements(content, value[16:], kind, count)


@given(st.dictionaries(KEYS, BUCKETS, max_size=6))
def test_what_is_written_is_read_back(content: dict[bytes, bolt.Bucket]) -> None:
    assert read(write(content)) == content


def test_many_keys_make_a_tree_of_several_levels() -> None:
    content: dict[bytes, bolt.Bucket] = {b"all": {f"{one:08}".encode(): b"v" * 40 for one in range(60_000)}}
    assert read(write(content)) == content


def test_the_same_content_gives_the_same_bytes() -> None:
    assert write({b"a": {b"x": b"1", b"y": b"2"}}) == write({b"a": {b"y": b"2", b"x": b"1"}})


def test_every_meta_page_has_its_checksum() -> None:
    content = write({b"a": {b"x": b"1"}})
    for number in (0, 1):
        body = content[number * PAGE + 16 : number * PAGE + 16 + 56]
        (told,) = struct.unpack_from("<Q", content, number * PAGE + 16 + 56)
        assert told == bolt._fnv1a(body)
    assert bolt._fnv1a(b"foobar") == 0x85944171F73967E8  # of the algorithm's own test vectors


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({b"x": b"1"}, "buckets alone"),
        ({b"a": {b"": b"1"}}, "a key has 0 bytes"),
        ({b"a": {b"k" * 40_000: b"1"}}, "a key has 40000 bytes"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(content: bolt.Bucket, said: str) -> None:
    with pytest.raises(BoltError, match=said):
        write(content)
