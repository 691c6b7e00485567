"""Kinds of values that settings have."""

from __future__ import annotations

import re
from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, Field

_UNITS = {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_NUMBER_AND_UNIT = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)?")


def _duration(value: object) -> object:
    match = _NUMBER_AND_UNIT.fullmatch(value) if isinstance(value, str) else None
    return value if match is None else timedelta(seconds=float(match[1]) * _UNITS[match[2] or ""])


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Port = Annotated[int, Field(ge=0, le=65535)]


def between(default: timedelta, least: timedelta, most: timedelta, description: str) -> timedelta:
    """Return a field of a duration with its default and its range."""
    field: timedelta = Field(default=default, ge=least, le=most, description=description)
    return field


class Role(StrEnum):
    """What a server process does: agents' sessions, what administrators call, what runs on a schedule."""

    GATEWAY = "gateway"
    API = "api"
    WORKER = "worker"


SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
