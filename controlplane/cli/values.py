"""Values as people type and read them: durations, times, labels, and ages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import typer
from google.protobuf.duration_pb2 import Duration as DurationMessage
from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import TypeAdapter, ValidationError

from controlplane.settings import Duration

_DURATION: Final[TypeAdapter[timedelta]] = TypeAdapter(Duration)
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "m"))

DURATION_HELP = "A number of seconds, or one with a unit of ms, s, m, h or d: 90, 250ms, 24h."


def duration(text: str, option: str | None = None) -> timedelta:
    """Read a duration as the settings take it: ``90``, ``250ms``, ``24h``, ``PT1M30S``.

    Raises ``typer.BadParameter`` that names ``option`` for anything else, and for less than nothing.
    """
    try:
        found = _DURATION.validate_python(text)
    except ValidationError:
        found = timedelta(-1)
    if found < timedelta():
        raise typer.BadParameter(
            f"{text!r}: write a number with a unit of ms, s, m, h or d, such as 90s or 24h", param_hint=option
        )
    return found


def moment(text: str, now: datetime, option: str | None = None) -> datetime:
    """Read a time: RFC 3339 (``2026-11-23T08:00:00Z``), or how long ago (``15m``).

    Raises ``typer.BadParameter``; also for a time without a zone, which would mean another one elsewhere.
    """
    try:
        return _of_a_clock(text) or now - duration(text)
    except (typer.BadParameter, OverflowError):
        raise typer.BadParameter(
            f"{text!r}: write a time with its zone, such as 2026-11-23T08:00:00Z, or how long ago: 15m",
            param_hint=option,
        ) from None


def _of_a_clock(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if found.tzinfo is None else found.astimezone(UTC)


def labels(texts: Iterable[str], option: str = "--label", *, secret: bool = False) -> dict[str, str]:
    """Read KEY=VALUE of each text.

    Raises ``typer.BadParameter``, also for a key that comes twice; of what is ``secret`` it names the place
    and the key alone.
    """
    found: dict[str, str] = {}
    for number, text in enumerate(texts, 1):
        key, equals, value = text.partition("=")
        where = f"{option} number {number}" if secret else f"{option} {text!r}"
        if not equals or not key:
            raise typer.BadParameter(f"{where}: write KEY=VALUE")
        if found.setdefault(key, value) != value:
            other = "another value" if secret else repr(found[key])
            raise typer.BadParameter(f"{where}: {key} is {other} already: name each key once")
    return found


def label_changes(texts: Sequence[str]) -> tuple[dict[str, str], set[str]]:
    """Read ``key=value`` (set) and ``key-`` (remove) of each text; return what to set and what to remove.

    Raises ``typer.BadParameter``, also for a key that is to be both.
    """
    removals = [text for text in texts if text.endswith("-") and "=" not in text and len(text) > 1]
    removed = {text[:-1] for text in removals}
    chosen = labels((text for text in texts if text not in removals), "LABEL")
    both = removed & chosen.keys()
    if both:
        raise typer.BadParameter(
            f"{', '.join(sorted(both))}: to be set and to be removed: name each key once"
        )
    return chosen, removed


def shown_labels(found: Any) -> str:
    """Return a map of labels as ``key=value``, ordered, separated by commas."""
    return ",".join(f"{key}={value}" for key, value in sorted(found.items()))


def shown_duration(length: timedelta) -> str:
    """Return a duration as people say it, in at most two units: ``850ms``, ``42s``, ``3m10s``, ``4d3h``."""
    seconds = length.total_seconds()
    if abs(seconds) < 1:
        return f"{seconds * 1000:.0f}ms" if seconds else "0s"
    sign, left = ("-" if seconds < 0 else ""), int(abs(seconds))
    parts: list[tuple[int, str]] = []
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count or parts:
            parts.append((count, unit))
    parts.append((left, "s"))
    return sign + "".join(f"{count}{unit}" for count, unit in parts[:2] if count or len(parts) == 1)


def age(message: Any, field: str, now: datetime) -> str:
    """Return how long ago the time in ``field`` of ``message`` is; empty where it is not set."""
    if not message.HasField(field):
        return ""
    then = instant(getattr(message, field))
    return shown_duration(timedelta(seconds=int((now - then).total_seconds())))


def shown_time(message: Any, field: str) -> str:
    """Return the time in ``field`` of ``message`` in UTC, to the second; empty where it is not set."""
    return f"{instant(getattr(message, field)):%Y-%m-%d %H:%M:%SZ}" if message.HasField(field) else ""


def instant(time: Timestamp) -> datetime:
    """Return a time of the contract with its zone."""
    return time.ToDatetime(tzinfo=UTC)


def duration_message(length: timedelta) -> DurationMessage:
    """Return a duration as the contract has it."""
    made = DurationMessage()
    made.FromTimedelta(length)
    return made


def timestamp_message(time: datetime) -> Timestamp:
    """Return a time as the contract has it."""
    made = Timestamp()
    made.FromDatetime(time)
    return made


def enum_name(descriptor: Any, number: int) -> str:
    """Return the name of a value without the prefix of its type: ``ONLINE`` for ``PRESENCE_ONLINE``.

    A value that this client does not know yet is its number.
    """
    value = descriptor.values_by_number.get(number)
    if value is None:
        return str(number)
    words = "".join(f"_{char}" if char.isupper() else char.upper() for char in descriptor.name).lstrip("_")
    return str(value.name).removeprefix(f"{words}_")
