"""The server's own log lines, as a program that collects them would read them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from controlplane.observability.logging import configure


class Lines(io.StringIO):
    """What was logged, as text and as JSON objects."""

    def all(self) -> list[dict[str, Any]]:
        """Return every line."""
        return [json.loads(line) for line in self.getvalue().splitlines()]

    def of(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of one event."""
        return [line for line in self.all() if line["event"] == event]


@contextmanager
def logged(level: str = "debug") -> Iterator[Lines]:
    """Log as a server without a terminal does, into what is yielded."""
    root = logging.getLogger()
    handlers, before = root.handlers[:], root.level
    lines = Lines()
    configure(level, "json", lines)
    try:
        yield lines
    finally:
        root.handlers[:], root.level = handlers, before
        structlog.reset_defaults()
        structlog.contextvars.clear_contextvars()
