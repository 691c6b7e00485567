"""Structured logs on standard error: JSON for programs, lines for a terminal.

Events are named in the past tense ("agent deleted"); what they are about goes in
keys. Context (request_id, agent, session, task) is bound with structlog's
contextvars. A processor blanks whatever has the name of a secret, and what looks like
one inside of texts, tracebacks included.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from controlplane.redaction import REDACTED, text

_SECRET_NAMES = frozenset(
    {
        "authorization",
        "body",
        "environment",
        "env",
        "key",
        "passphrase",
        "password",
        "secret",
        "stdin",
        "token",
    }
)
# Parts of a name by themselves, so that "join_token" and "private-key" are caught and "monkey" is not.
_SEPARATORS = str.maketrans("-.", "__")
# How deep a structure is searched; what lies deeper is blanked as a whole.
_DEPTH = 6


@lru_cache(maxsize=1024)
def _is_secret(name: object) -> bool:
    parts = str(name).lower().translate(_SEPARATORS).split("_")
    return not _SECRET_NAMES.isdisjoint(parts)


def _redacted(value: Any, depth: int) -> Any:
    if isinstance(value, Mapping):
        if depth == 0:
            return REDACTED
        return {k: REDACTED if _is_secret(k) else _redacted(v, depth - 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return REDACTED if depth == 0 else [_redacted(item, depth - 1) for item in value]
    if isinstance(value, BaseException):
        value = repr(value)
    return text(value) if isinstance(value, str) else value


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Blank values whose name, or a part of it, is that of a secret, at any depth, and secrets in texts."""
    return {
        name: REDACTED if name != "event" and _is_secret(name) else _redacted(value, _DEPTH)
        for name, value in event.items()
    }


def _shared() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        # Last, so that it sees tracebacks as the text that they become.
        redact,
    ]


def _rendering(pretty: bool) -> list[Processor]:
    if pretty:
        return [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    return [structlog.processors.JSONRenderer()]


def configure(level: str = "info", log_format: str = "auto", stream: TextIO | None = None) -> None:
    """Configure logging of this process, the standard library's included.

    ``level`` is debug, info, warning or error; ``log_format`` is json, pretty, or auto, which
    is pretty on a terminal and JSON elsewhere. Replaces an earlier configuration.
    """
    target = stream or sys.stderr
    pretty = log_format == "pretty" or (log_format == "auto" and target.isatty())
    number = getattr(logging, level.upper())
    structlog.configure(
        processors=[*_shared(), *_rendering(pretty)],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(target),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_shared(),
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(pretty)],
        )
    )
    # Libraries speak up when something is wrong; their chatter is not ours.
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)
