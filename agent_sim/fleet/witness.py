"""The witness of effects: a file outside the product that says what simulated hosts really did."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path


class Witness:
    """Appends one line ``task attempt agent`` for each effect, durable before the effect counts as done.

    Effects that come while a write is under way share the next write and its fsync.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._flushing: asyncio.Task[None] | None = None

    async def record(self, task: str, attempt_id: str, agent_id: str) -> None:
        """Append one effect; returns once it is on disk. Raises OSError."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append((f"{task} {attempt_id} {agent_id}\n".encode(), done))
        if self._flushing is None:
            self._flushing = loop.create_task(self._flush())
        await done

    async def close(self) -> None:
        """Wait for what is being written, and close the file."""
        if self._flushing is not None:
            await self._flushing
        os.close(self._descriptor)

    async def _flush(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            try:
                await asyncio.to_thread(self._write, b"".join(line for line, _ in group))
            except OSError as error:
                _answer(group, error)
            else:
                _answer(group, None)
        self._flushing = None

    def _write(self, lines: bytes) -> None:
        view = memoryview(lines)
        while view:
            view = view[os.write(self._descriptor, view) :]
        os.fsync(self._descriptor)


def _answer(group: list[tuple[bytes, asyncio.Future[None]]], error: OSError | None) -> None:
    for _, done in group:
        if done.done():
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
