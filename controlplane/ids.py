"""Ids that the server gives out: random, and near each other where they are made near each other in time.

A database keeps rows and indexes in the order of their keys. Keys that are random all over touch a page
each, and each page is written with the commit; those that begin with the moment go to the end, together.
"""

from __future__ import annotations

import secrets

_MOMENT_DIGITS = 12
_RANDOM_BYTES = 10


def new_id(now: int) -> str:
    """Return 32 hexadecimal digits: the millisecond of ``now``, which is in microseconds, and 80 random bits.

    Two ids of one moment are in no order, and nobody may read the moment back: clocks jump.
    """
    return f"{now // 1000:0{_MOMENT_DIGITS}x}"[-_MOMENT_DIGITS:] + secrets.token_hex(_RANDOM_BYTES)
