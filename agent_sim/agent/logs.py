"""Logs: the end of a file that the policy allows, and no other file, however the path is written."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from fleetwright.v1 import work_pb2

from agent_sim.agent.rules import RefusedError, check_log_path, grant_log_bytes
from agent_sim.host import AttemptReporter

_BLOCK_BYTES = 256 << 10
# A line without end is cut here, so that no file can fill the memory.
_LINE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class LogTail:
    """What was read: ``truncated`` where the beginning of what matches was left out."""

    content: bytes
    file_bytes: int
    truncated: bool


class LogReader:
    """Reads logs within the policy's patterns and limits (bytes sent, bytes searched)."""

    def __init__(self, patterns: Sequence[str], *, max_bytes: int, scan_bytes: int) -> None:
        self._patterns = patterns
        self._max_bytes = max_bytes
        self._scan_bytes = scan_bytes

    async def run(self, spec: work_pb2.LogsSpec, reporter: AttemptReporter) -> work_pb2.AttemptResult:
        """Send the end of one file and return the result, without its times.

        Raises ``RefusedError`` where the policy does not allow the file, and
        ``OSError`` where it cannot be read.
        """
        limit = grant_log_bytes(spec.max_bytes, self._max_bytes)
        stop = threading.Event()
        try:
            tail = await asyncio.to_thread(self._read, spec.path, spec.contains.encode(), limit, stop)
        finally:
            stop.set()  # A thread cannot be cancelled: it looks here between two blocks.
        for start in range(0, len(tail.content), _BLOCK_BYTES):
            await reporter.output(work_pb2.OUTPUT_STREAM_LOG, tail.content[start : start + _BLOCK_BYTES])
        return work_pb2.AttemptResult(
            outcome=work_pb2.OUTCOME_SUCCEEDED,
            log_bytes=len(tail.content),
            logs=work_pb2.LogsResult(file_bytes=tail.file_bytes, truncated=tail.truncated),
        )

    def _read(self, path: str, contains: bytes, limit: int, stop: threading.Event) -> LogTail:
        resolved = _resolve(path)
        check_log_path(resolved, self._patterns)
        handle = _open_resolved(resolved)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise RefusedError(f"logs.path: {path!r} is not a regular file")
            if contains:
                return _matching_end(handle, status.st_size, contains, limit, self._scan_bytes, stop)
            return _plain_end(handle, status.st_size, limit, stop)
        finally:
            os.close(handle)


def _resolve(path: str) -> str:
    if not path.startswith("/"):
        raise RefusedError(f"logs.path: {path!r} is not absolute")
    try:
        return os.path.realpath(path)
    except ValueError as error:  # A NUL character.
        raise RefusedError("logs.path: has a character that no path can have") from error


def _open_resolved(resolved: str) -> int:
    """Open ``resolved`` folder by folder, following no link anywhere.

    The decision was about this very path: a link that took a folder's place
    after it is an ``OSError`` here (ELOOP or ENOTDIR), not a way around it.
    """
    *folders, name = PurePosixPath(resolved).parts
    at = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        for folder in folders[1:]:
            below = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = below
        # O_NONBLOCK: opening a pipe that nobody writes to would wait for ever.
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
    finally:
        os.close(at)


def _blocks(handle: int, start: int, end: int, stop: threading.Event) -> Iterator[bytes]:
    """Yield the bytes from ``start`` to ``end``; less where the file shrinks meanwhile."""
    while start < end and not stop.is_set():
        block = os.pread(handle, min(_BLOCK_BYTES, end - start), start)
        if not block:
            return
        start += len(block)
        yield block


def _plain_end(handle: int, size: int, limit: int, stop: threading.Event) -> LogTail:
    content = b"".join(_blocks(handle, max(0, size - limit), size, stop))
    return LogTail(content, size, truncated=size > limit)


def _matching_end(
    handle: int, size: int, contains: bytes, limit: int, scan: int, stop: threading.Event
) -> LogTail:
    """Keep the lines with ``contains``, and of them the last ``limit`` bytes, of the last ``scan`` bytes."""
    start = max(0, size - scan)
    kept = bytearray()
    cut = start > 0  # What came before was not searched: it counts as left out.
    for line in _lines(_blocks(handle, start, size, stop)):
        if contains in line:
            kept += line
        if len(kept) > 2 * limit:
            del kept[: len(kept) - limit]
            cut = True
    if len(kept) > limit:
        del kept[: len(kept) - limit]
        cut = True
    return LogTail(bytes(kept), size, truncated=cut)


def _lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield lines with their ends; the last one may have none."""
    carry = b""
    for block in blocks:
        carry, *more = (carry + block).splitlines(keepends=True)[::-1]
        yield from reversed(more)
        if carry.endswith(b"\n") or len(carry) > _LINE_BYTES:
            yield carry
            carry = b""
    if carry:
        yield carry
