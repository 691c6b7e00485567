"""The repository's files for the client of the metadata, which is synchronous and lives in a thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar, cast

from fleetwright.verify.errors import FetchFailed

from agent_sim.host import FilesError, FilesUnavailableError, Piece, ServerFiles
from agent_sim.released.patience import Patience
from agent_sim.released.reasons import of_files

Result = TypeVar("Result")


class SessionFetcher:
    """Implements ``fleetwright.verify.fetching.Fetcher`` over the files that a session gives.

    Made on the event loop, used from one other thread. ``stop`` ends what the thread waits for, so that
    whoever is cancelled does not wait for a server.
    """

    def __init__(self, files: ServerFiles, patience: Patience) -> None:
        self._files, self._patience = files, patience
        self._loop = asyncio.get_running_loop()
        self._stopped = False
        self._waiting: concurrent.futures.Future[Any] | None = None

    def stop(self) -> None:
        """Let every call fail from now on."""
        self._stopped = True
        if self._waiting is not None:
            self._waiting.cancel()

    def metadata(self, name: str) -> Iterator[bytes]:
        """Give a metadata file."""
        yield self._wait(self._patience.persist(lambda: self._files.metadata(name)))

    def target(self, path: str) -> Iterator[bytes]:
        """Give a target, which the server knows by the digest before its file's name.

        Only evidence comes this way, small files that are not kept where they are cut for good. A package is
        downloaded by ``downloading``.
        """
        sha256 = path.rpartition("/")[2].partition(".")[0]
        place, failures = 0, 0
        while True:
            pieces = self._files.artefact(sha256, place)
            try:
                while (piece := self._wait(_next(pieces))) is not None:
                    yield _checked(piece, place, path)
                    place, failures = place + len(piece.data), 0
                return
            except _Cut as cut:
                failures += 1
                self._wait(self._patience.after(failures, cut.error))
            finally:
                self._close(pieces)

    def _close(self, pieces: AsyncIterator[Piece]) -> None:
        closing = getattr(pieces, "aclose", None)
        if closing is not None and not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(closing(), self._loop)

    def _wait(self, work: Coroutine[Any, Any, Result]) -> Result:
        if self._stopped:
            work.close()
            raise FetchFailed("the installation was stopped")
        future = self._waiting = asyncio.run_coroutine_threadsafe(work, self._loop)
        if self._stopped:  # Asked for in between.
            future.cancel()
        try:
            return cast(Result, future.result())
        except concurrent.futures.CancelledError:
            raise FetchFailed("the installation was stopped") from None
        except FilesError as error:
            raise of_files(error) from None
        finally:
            self._waiting = None


class _Cut(Exception):
    """A stream of pieces ended before its time."""

    def __init__(self, error: FilesUnavailableError) -> None:
        self.error = error


async def _next(pieces: AsyncIterator[Piece]) -> Piece | None:
    try:
        return await anext(pieces, None)
    except FilesUnavailableError as error:
        raise _Cut(error) from None


def _checked(piece: Piece, place: int, path: str) -> bytes:
    if piece.offset != place or not piece.data:
        raise FetchFailed(f"{path}: a piece of {len(piece.data)} bytes from {piece.offset}, not {place}")
    return piece.data
