"""Rows in PostgreSQL's binary format of COPY (postgresql.org/docs/current/sql-copy.html, "Binary Format").

A row is the number of its fields, then each field as its length and its bytes, integers in network
order. The driver makes a row by asking the type of each value; whoever stores many rows of one shape
packs them with less.
"""

from __future__ import annotations

from struct import Struct

HEADER = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
"""Signature, no flags, no extension."""

TRAILER = b"\xff\xff"

_COUNT = Struct(">h")
_LENGTH = Struct(">i")
_INTEGER = Struct(">iq")


def begin(fields: int) -> bytes:
    """Return the begin of a row of so many fields."""
    return _COUNT.pack(fields)


def text(value: str) -> bytes:
    """Return a field of a text type. PostgreSQL refuses one with a NUL."""
    encoded = value.encode()
    return _LENGTH.pack(len(encoded)) + encoded


def integer(value: int) -> bytes:
    """Return a field of type bigint."""
    return _INTEGER.pack(8, value)
