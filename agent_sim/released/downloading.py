"""Fetching a package's bytes, from where the last try ended, into a file that is kept until it is whole.

Nothing is believed of what comes: a piece that does not begin where it has to, a length that is not the
released one, and data that does not end are each refused at once. Whether the bytes are the right ones is
told by their digest, later and elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from io import FileIO
from pathlib import Path
from typing import Final

from fleetwright.verify.errors import (
    EndlessData,
    FetchFailed,
    SlowData,
    VerificationError,
    WrongTarget,
)
from fleetwright.verify.tuf_client import Release

from agent_sim.host import FilesError, FilesUnavailableError, Piece, ServerFiles
from agent_sim.released.patience import PATIENCE, Patience
from agent_sim.released.reasons import of_files

WITHIN: Final = timedelta(minutes=30)
"""How long a package may take that has no length worth speaking of."""
SLOWEST: Final = 16 * 1024
"""Bytes a second that a longer one may take in addition: data that trickles for ever is an attack too."""


@dataclass(frozen=True, slots=True)
class Download:
    """What a download needs."""

    files: ServerFiles
    patience: Patience = PATIENCE
    within: timedelta = WITHIN
    monotonic: Callable[[], float] = time.monotonic

    async def fetch(
        self, release: Release, partial: Path, said: Callable[[int], None], fetched: Callable[[int], None]
    ) -> None:
        """Complete the file ``partial``.

        What it holds already is not fetched again. ``said`` hears how long it is by now, ``fetched`` how many
        bytes came in the end, also where they were not enough. Raises ``VerificationError``
        (``EndlessData``, ``SlowData``, ``WrongTarget``, ``NotFound``, ``FetchFailed``), and ``OSError`` where
        the disk does not take it. The file stays for the next try, also where its bytes are wrong.
        """
        with _opened(partial, release.length) as file:
            start = file.tell()
            try:
                await self._complete(release, file, said)
            finally:
                fetched(file.tell() - start)
            await asyncio.to_thread(os.fsync, file.fileno())

    async def _complete(self, release: Release, file: FileIO, said: Callable[[int], None]) -> None:
        end = self.monotonic() + self.within.total_seconds() + release.length / SLOWEST
        failures = 0
        while file.tell() < release.length:
            before = file.tell()
            try:
                async with aclosing(_pieces(self.files, release, before)) as pieces:
                    async for data in pieces:
                        await asyncio.to_thread(_append, file, data)
                        said(file.tell())
                        if self.monotonic() > end:
                            raise SlowData(f"{release.path}: not whole in its time: try again")
                if file.tell() < release.length:
                    raise FilesUnavailableError(f"{release.path}: it ended at {file.tell()} bytes")
            except FilesUnavailableError as error:
                failures = failures + 1 if file.tell() == before else 1
                await _wait(self.patience, failures, error)
            except FilesError as error:
                raise of_files(error) from None


async def _wait(patience: Patience, failures: int, error: FilesUnavailableError) -> None:
    try:
        await patience.after(failures, error)
    except FilesUnavailableError as last:
        raise FetchFailed(
            f"{last}: tried {failures} times: try again when the server can be reached"
        ) from None


async def _pieces(files: ServerFiles, release: Release, start: int) -> AsyncGenerator[bytes, None]:
    """Give what comes from ``start`` on, each piece checked against what was released."""
    place = start
    async for piece in files.artefact(release.sha256, start):
        problem = _problem(piece, place, release)
        if problem is not None:
            raise problem
        place += len(piece.data)
        yield piece.data


def _problem(piece: Piece, place: int, release: Release) -> VerificationError | None:
    if piece.offset != place:
        return WrongTarget(f"{release.path}: a piece from byte {piece.offset} came, where {place} is next")
    if not piece.data:
        return FetchFailed(f"{release.path}: the server sends pieces without data: tell its operator")
    if place + len(piece.data) > release.length:
        return EndlessData(
            f"{release.path}: goes on beyond the {release.length} bytes released: do not trust it"
        )
    if piece.total_bytes != release.length:
        return WrongTarget(
            f"{release.path}: the server has {piece.total_bytes} bytes, where {release.length} are released"
        )
    return None


def _opened(partial: Path, length: int) -> FileIO:
    """Open the file at its end; one that is longer than the package is begun anew."""
    handle = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    file = FileIO(handle, "r+b")
    if file.seek(0, os.SEEK_END) > length:
        file.truncate(0)
        file.seek(0)
    return file


def _append(file: FileIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
