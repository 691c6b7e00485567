"""How the text of a literal becomes a value: escapes, numbers, times (RFC 3339) and durations.

Times and durations become integer microseconds, as the database keeps them.
Every function raises FilterError at the literal's position.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

from controlplane.filtering.errors import FilterError, quote
from controlplane.filtering.tree import Literal

MIN_INTEGER, MAX_INTEGER = -(2**63), 2**63 - 1
"""What a 64-bit column holds; a larger bound could reach no row, and no driver takes it."""

_ESCAPES = {'"': '"', "'": "'", "\\": "\\", "*": "*", "n": "\n", "r": "\r", "t": "\t"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_REAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_DURATION = re.compile(r"([+-]?)([0-9]{1,12})(?:\.([0-9]{1,9}))?(ms|s|m|h|d)")
_TIMESTAMP = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:([Zz])|([+-])([0-9]{2}):([0-9]{2}))"
)
_MICROSECONDS = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}


def read_quoted(source: str, position: int) -> Literal:
    """Return the literal of a text in quotes, its escapes resolved."""
    chars: list[str] = []
    wildcards: list[int] = []
    index = 1
    while index < len(source) - 1:
        char = source[index]
        if char == "\\":
            index += 1
            if source[index] not in _ESCAPES:
                raise FilterError(
                    f"{quote(source[index - 1 : index + 1])} is no escape: write \\\\ for a backslash; "
                    "the others are \\\" \\' \\* \\n \\r \\t",
                    position + index - 1,
                )
            char = _ESCAPES[source[index]]
        elif char == "*":
            wildcards.append(len(chars))
        chars.append(char)
        index += 1
    return Literal("".join(chars), quoted=True, wildcards=tuple(wildcards), position=position)


def read_integer(literal: Literal) -> int:
    """Return a whole number of 64 bits."""
    if not _INTEGER.fullmatch(literal.text):
        raise FilterError(f"{quote(literal.text)} is no whole number: write one such as 42", literal.position)
    return _in_range(int(literal.text), literal)


def read_real(literal: Literal) -> float:
    """Return a finite number."""
    number = float(literal.text) if _REAL.fullmatch(literal.text) else float("nan")
    if not abs(number) < float("inf"):
        raise FilterError(
            f"{quote(literal.text)} is no number: write one such as 2.5 or 1e9", literal.position
        )
    return number


def read_boolean(literal: Literal) -> bool:
    """Return a truth value."""
    if literal.text not in ("true", "false"):
        raise FilterError(f"{quote(literal.text)} is no truth value: write true or false", literal.position)
    return literal.text == "true"


def read_duration(literal: Literal) -> int:
    """Return microseconds of ``20s`` or ``1.5s`` (AIP-160), or of a number of ms, m, h or d."""
    match = _DURATION.fullmatch(literal.text)
    if not match:
        raise FilterError(
            f"{quote(literal.text)} is no duration: write seconds as in 20s or 1.5s; ms, m, h and d work too",
            literal.position,
        )
    sign, whole, fraction, unit = match.groups()
    scaled = (int(whole) * 10**9 + _nanoseconds(fraction)) * _MICROSECONDS[unit]
    if scaled % 10**9:
        raise FilterError(
            f"{quote(literal.text)} is finer than a microsecond: write fewer decimals", literal.position
        )
    return _in_range(-scaled // 10**9 if sign == "-" else scaled // 10**9, literal)


def read_timestamp(literal: Literal) -> int:
    """Return microseconds since the epoch, UTC, of a time by RFC 3339."""
    match = _TIMESTAMP.fullmatch(literal.text)
    if not match:
        raise FilterError(
            f"{quote(literal.text)} is no time: write RFC 3339 with an offset, as in 2030-01-31T12:00:00Z",
            literal.position,
        )
    date, clock, fraction, _, sign, hours, minutes = match.groups()
    nanoseconds = _nanoseconds(fraction)
    if nanoseconds % 1000:
        raise FilterError(
            f"{quote(literal.text)} is finer than a microsecond: write six decimals at most", literal.position
        )
    try:
        zone = _zone(sign, hours, minutes)
        # Subtracting keeps whole microseconds, where datetime.timestamp() would round through a float.
        whole = datetime.fromisoformat(f"{date}T{clock}").replace(tzinfo=zone) - _EPOCH
    except (ValueError, OverflowError):
        raise FilterError(
            f"{quote(literal.text)} is not in the calendar: check month, day, hour and offset",
            literal.position,
        ) from None
    return whole // timedelta(microseconds=1) + nanoseconds // 1000


def _zone(sign: str | None, hours: str | None, minutes: str | None) -> timezone:
    if sign is None or hours is None or minutes is None:
        return UTC
    if int(hours) > 23 or int(minutes) > 59:
        raise ValueError("an offset has at most 23:59")
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    return timezone(-offset if sign == "-" else offset)


def _nanoseconds(fraction: str | None) -> int:
    return int((fraction or "").ljust(9, "0"))


def _in_range(number: int, literal: Literal) -> int:
    if not MIN_INTEGER <= number <= MAX_INTEGER:
        raise FilterError(
            f"{quote(literal.text)} is beyond 64 bits: write a smaller number", literal.position
        )
    return number
