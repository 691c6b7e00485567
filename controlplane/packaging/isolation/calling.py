"""Inside the confined process: calls the function and writes down its answer, or becomes the program.

The answer is JSON: ``{"value": …}``, ``{"error": {"code", "member", "message"}}`` for an error that the job
itself found, or ``{"failed": kind, "message": …}`` for one of isolation's own.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import sys
import traceback
from collections.abc import Mapping
from enum import Enum

from controlplane.packaging.isolation.records import FailureKind, JsonValue

UNEXPECTED = "UNEXPECTED"

_MEMORY = json.dumps({"failed": FailureKind.MEMORY.value, "message": ""}).encode()
"""Made beforehand: there may be no memory left to make it."""
CODE_CHARS, MEMBER_CHARS, MESSAGE_CHARS = 64, 512, 2_000
"""Longest texts of an error; they are often made from the input."""


def answer(target: str, arguments: Mapping[str, JsonValue], limit: int) -> bytes:
    """Call ``package.module:function`` and return what it answered, in at most ``limit`` bytes."""
    module, _, function = target.partition(":")
    try:
        value = getattr(importlib.import_module(module), function)(**arguments)
    except MemoryError:
        return _MEMORY
    except BaseException as error:  # noqa: BLE001 # nothing of Python's own reaches the caller
        return _failed_with(error)
    try:
        written = json.dumps({"value": value}, allow_nan=False).encode()
    except MemoryError:
        return _MEMORY
    except Exception as error:  # noqa: BLE001 # whatever the value's own methods raise
        return _failure(FailureKind.BAD_RESULT, f"the function's answer is no JSON: {_last_line(error)}")
    if len(written) > limit:
        return _failure(FailureKind.TOO_MUCH_OUTPUT, f"the answer has {len(written)} bytes; at most {limit}")
    return written


def _failed_with(error: BaseException) -> bytes:
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return _failure(FailureKind.TOO_MUCH_OUTPUT, "a file grew over the limit of one file")
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return _MEMORY
    code, message = _text(getattr(error, "code", None)), _text(getattr(error, "message", None))
    if code and message:
        member = _text(getattr(error, "member", None))
    else:
        code, member = UNEXPECTED, ""
        message = f"the job failed with {type(error).__name__}, which it does not know; its log says more"
        print(_last_line(error), file=sys.stderr, flush=True)
    told = {"code": code[:CODE_CHARS], "member": member[:MEMBER_CHARS], "message": message[:MESSAGE_CHARS]}
    return json.dumps({"error": told}).encode()


def _failure(kind: FailureKind, message: str) -> bytes:
    return json.dumps({"failed": kind.value, "message": message[:MESSAGE_CHARS]}).encode()


def _text(value: object) -> str:
    text = value.value if isinstance(value, Enum) else value
    return text if isinstance(text, str) else ""


def _last_line(error: BaseException) -> str:
    """Return the error as the last line of its traceback, and where it was raised."""
    try:
        lines = traceback.format_exception_only(error)
        frames = traceback.extract_tb(error.__traceback__)
    except Exception:  # noqa: BLE001 # an exception whose own text raises
        return type(error).__name__
    where = f" (line {frames[-1].lineno} of {os.path.basename(frames[-1].filename)})" if frames else ""
    return (lines[-1].strip() if lines else type(error).__name__) + where


def write(descriptor: int, payload: bytes) -> None:
    """Write all of an answer."""
    view = memoryview(payload)
    while view:
        view = view[os.write(descriptor, view) :]
