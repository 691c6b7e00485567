"""Writing a key-value file in the format of bbolt (go.etcd.io/bbolt), whole and at once.

A file is a row of pages: two with its meta data, one with the list of free pages, then trees of buckets. A
bucket is a B+ tree of keys in the order of their bytes; the value of a key may be another bucket, which then
is a tree of its own, or stands within the value where it is small. Everything is little-endian. The same
content gives the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar, Union

PAGE = 4096
"""Bytes of a page; the file says so, and a reader need not have pages of that size."""

Bucket = Mapping[bytes, Union[bytes, "Bucket"]]
"""Keys with values, or with buckets."""

_MAGIC, _VERSION = 0xED0CDAED, 2
_BRANCH, _LEAF, _META, _FREELIST = 0x01, 0x02, 0x04, 0x10
_IS_BUCKET = 0x01
_HEADER = struct.Struct("<QHHI")  # page id, kind, elements, further pages
_LEAF_ELEMENT = struct.Struct("<IIII")  # flags, distance to the key, lengths of key and value
_BRANCH_ELEMENT = struct.Struct("<IIQ")  # distance to the key, its length, page
_BUCKET_HEADER = struct.Struct("<QQ")  # page of the root, sequence
_META_BODY = struct.Struct("<IIIIQQQQQ")
_INLINE = PAGE // 4
"""Longest bucket that is written within its value: what bbolt itself does."""
_MAX_KEY = 32_768
_MAX_VALUE = 2**31 - 2
_MAX_ELEMENTS = 0xFFFF
_FIRST_FREE = 3


class _Element(NamedTuple):
    flags: int
    key: bytes
    value: bytes


class _Child(NamedTuple):
    key: bytes
    page: int


Item = TypeVar("Item")


class BoltError(ValueError):
    """The content cannot be written in this format."""


def write(root: Bucket) -> bytes:
    """Return the file. ``root`` has buckets alone. Raises ``BoltError``."""
    if any(isinstance(value, bytes) for value in root.values()):
        raise BoltError("the root holds buckets alone, and no values")
    pages = _Pages()
    page = pages.tree(root)
    return pages.file(page)


class _Pages:
    """Pages in the order of their numbers, without those of the meta data and the free list."""

    def __init__(self) -> None:
        self._written: list[bytes] = []
        self._next = _FIRST_FREE

    def tree(self, bucket: Bucket) -> int:
        """Write a bucket; returns the page of its root."""
        elements = [self._element(key, bucket[key]) for key in sorted(bucket)]
        children = [
            _Child(some[0].key if some else b"", self._page(_LEAF, len(some), _leaf(some)))
            for some in _shared_out(elements, _leaf_size)
        ]
        while len(children) > 1:
            children = [
                _Child(some[0].key, self._page(_BRANCH, len(some), _branch(some)))
                for some in _shared_out(children, _branch_size)
            ]
        return children[0].page

    def _element(self, key: bytes, value: bytes | Bucket) -> _Element:
        if not 0 < len(key) <= _MAX_KEY:
            raise BoltError(f"a key has {len(key)} bytes; 1 to {_MAX_KEY} are allowed")
        if isinstance(value, bytes):
            if len(value) > _MAX_VALUE:
                raise BoltError(f"a value has {len(value)} bytes; {_MAX_VALUE} are allowed")
            return _Element(0, key, value)
        return _Element(_IS_BUCKET, key, self._bucket(value))

    def _bucket(self, bucket: Bucket) -> bytes:
        if all(isinstance(value, bytes) for value in bucket.values()):
            elements = [self._element(key, bucket[key]) for key in sorted(bucket)]
            if _HEADER.size + sum(map(_leaf_size, elements)) <= _INLINE:
                inline = _HEADER.pack(0, _LEAF, len(elements), 0) + _leaf(elements)
                return _BUCKET_HEADER.pack(0, 0) + inline
        return _BUCKET_HEADER.pack(self.tree(bucket), 0)

    def _page(self, kind: int, count: int, body: bytes) -> int:
        number = self._next
        content, further = _padded(number, kind, count, body)
        self._written.append(content)
        self._next += 1 + further
        return number

    def file(self, root: int) -> bytes:
        """Return all pages, with ``root`` as the page of the root bucket."""
        metas = [_meta(number, root, self._next) for number in (0, 1)]
        free, _ = _padded(2, _FREELIST, 0, b"")
        return b"".join((*metas, free, *self._written))


def _padded(number: int, kind: int, count: int, body: bytes) -> tuple[bytes, int]:
    length = _HEADER.size + len(body)
    further = (length - 1) // PAGE
    content = _HEADER.pack(number, kind, count, further) + body
    return content.ljust((1 + further) * PAGE, b"\0"), further


def _meta(number: int, root: int, pages: int) -> bytes:
    # A reader takes the meta page of the higher transaction; both are whole, as in a file that was closed.
    body = _META_BODY.pack(_MAGIC, _VERSION, PAGE, 0, root, 0, 2, pages, number)
    content, _ = _padded(number, _META, 0, body + struct.pack("<Q", _fnv1a(body)))
    return content


def _fnv1a(content: bytes) -> int:
    """Return the 64-bit FNV-1a hash (draft-eastlake-fnv)."""
    found = 0xCBF29CE484222325
    for byte in content:
        found = (found ^ byte) * 0x100000001B3 % 2**64
    return found


def _leaf_size(element: _Element) -> int:
    return _LEAF_ELEMENT.size + len(element.key) + len(element.value)


def _branch_size(child: _Child) -> int:
    return _BRANCH_ELEMENT.size + len(child.key)


def _shared_out(items: Sequence[Item], size: Callable[[Item], int]) -> list[list[Item]]:
    """Return the items in rows that fit into a page; at least one row, and at least two in a row of many.

    A row of one would not bring a tree nearer to its root: what is too long for a page has further pages.
    """
    shared: list[list[Item]] = [[]]
    left = PAGE - _HEADER.size
    for item in items:
        if len(shared[-1]) == _MAX_ELEMENTS or (len(shared[-1]) > 1 and size(item) > left):
            shared.append([])
            left = PAGE - _HEADER.size
        shared[-1].append(item)
        left -= size(item)
    return shared


def _leaf(elements: Sequence[_Element]) -> bytes:
    heads, data = [], []
    distance = len(elements) * _LEAF_ELEMENT.size
    for element in elements:
        heads.append(_LEAF_ELEMENT.pack(element.flags, distance, len(element.key), len(element.value)))
        data += [element.key, element.value]
        distance += len(element.key) + len(element.value) - _LEAF_ELEMENT.size
    return b"".join((*heads, *data))


def _branch(children: Sequence[_Child]) -> bytes:
    heads, data = [], []
    distance = len(children) * _BRANCH_ELEMENT.size
    for child in children:
        heads.append(_BRANCH_ELEMENT.pack(distance, len(child.key), child.page))
        data.append(child.key)
        distance += len(child.key) - _BRANCH_ELEMENT.size
    return b"".join((*heads, *data))
