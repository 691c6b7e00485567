"""Writing bbolt files (https://github.com/etcd-io/bbolt), the form of Trivy's database.

Each bucket is one leaf page, as long as it must be: readers follow a page's overflow, so that no tree is
needed. Keys are sorted by bytes, as readers search them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final, Union

Bucket = Mapping[bytes, Union[bytes, "Bucket"]]
"""Values, and buckets within."""

PAGE: Final = 4_096
MOST_ENTRIES: Final = 65_535
"""Of one bucket: its page counts them in 16 bits."""

_MAGIC: Final = 0xED0CDAED
_VERSION: Final = 2
_LEAF, _META, _FREELIST = 0x02, 0x04, 0x10
_IS_BUCKET: Final = 1
_HEADER = struct.Struct("<QHHI")
_ELEMENT = struct.Struct("<IIII")
_META_FIELDS = struct.Struct("<IIIIQQQQQ")
_FIRST_DATA: Final = 3
"""Behind two pages of meta and that of the list of free pages."""


def written(root: Bucket) -> bytes:
    """Return the file whose root bucket this is. Raises ``ValueError`` for a bucket with too many entries."""
    pages = bytearray()
    top = _write(root, pages)
    high = _FIRST_DATA + len(pages) // PAGE
    free = _page(2, _FREELIST, 0, b"")
    return b"".join((_meta(0, top, high), _meta(1, top, high), free, bytes(pages)))


def _write(bucket: Bucket, pages: bytearray) -> int:
    """Append a bucket and those within; returns the number of its page."""
    if len(bucket) > MOST_ENTRIES:
        raise ValueError(f"a bucket of {len(bucket)} entries; {MOST_ENTRIES} can be written")
    entries = []
    for key in sorted(bucket):
        value = bucket[key]
        if isinstance(value, bytes):
            entries.append((0, key, value))
        else:
            entries.append((_IS_BUCKET, key, struct.pack("<QQ", _write(value, pages), 0)))
    number = _FIRST_DATA + len(pages) // PAGE
    pages += _page(number, _LEAF, len(entries), _leaf(entries))
    return number


def _leaf(entries: list[tuple[int, bytes, bytes]]) -> bytes:
    elements, data = bytearray(), bytearray()
    for place, (flags, key, value) in enumerate(entries):
        # Positions count from the element itself.
        position = (len(entries) - place) * _ELEMENT.size + len(data)
        elements += _ELEMENT.pack(flags, position, len(key), len(value))
        data += key + value
    return bytes(elements + data)


def _page(number: int, flags: int, count: int, content: bytes) -> bytes:
    length = _HEADER.size + len(content)
    pages = -(-length // PAGE)
    return (_HEADER.pack(number, flags, count, pages - 1) + content).ljust(pages * PAGE, b"\0")


def _meta(number: int, root: int, high: int) -> bytes:
    fields = _META_FIELDS.pack(_MAGIC, _VERSION, PAGE, 0, root, 0, 2, high, number)
    return _page(number, _META, 0, fields + struct.pack("<Q", _fnv1a(fields)))


def _fnv1a(data: bytes) -> int:
    found = 0xCBF29CE484222325
    for byte in data:
        found = (found ^ byte) * 0x100000001B3 % 2**64
    return found
