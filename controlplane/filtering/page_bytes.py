"""How many rows of a page fit into one message.

A page has at most as many rows as the caller asked for, and fewer where rows are
large: gRPC clients refuse a message above 4 MiB unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

PAGE_BYTES = 2 * 1024 * 1024
"""Bytes of rows in one message, by their stores' estimate; half of what clients take by default."""

Row = TypeVar("Row")


def fitting(rows: Sequence[Row], size: Callable[[Row], int], limit: int = PAGE_BYTES) -> Sequence[Row]:
    """Return the first of ``rows`` whose sizes in bytes stay within ``limit`` together, at least one."""
    taken = 0
    for count, row in enumerate(rows):
        taken += size(row)
        if taken > limit and count:
            return rows[:count]
    return rows
