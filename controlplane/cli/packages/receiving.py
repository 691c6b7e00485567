"""Receiving a file in pieces: gone on with after a cut, whole by its digest or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Protocol

import grpc
from fleetwright.errors import Failure

from controlplane.cli.failures import CommandFailed
from controlplane.cli.persevering import Perseverance

PART: Final = ".part"
"""What is put behind the name of a file that is not whole yet."""

_BLOCK: Final = 1024 * 1024
_TOO_FAR = frozenset({grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.INVALID_ARGUMENT})


class Piece(Protocol):
    """A message of a download."""

    @property
    def offset(self) -> int:
        """Where the data begins."""

    @property
    def data(self) -> bytes:
        """The bytes."""

    @property
    def total_bytes(self) -> int:
        """Size of the whole."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is received. ``begin`` opens the call at an offset, where ``resumes``; else at 0 only."""

    begin: Callable[[int], Iterable[Piece]]
    resumes: bool
    sha256: str = ""
    """Of the whole; empty where nobody says it."""


def receive(
    wanted: Wanted, path: Path, perseverance: Perseverance, reached: Callable[[int, int], None]
) -> int:
    """Write what is wanted to ``path``, which may not exist, and return its size.

    What was received stands beside it under another name until it is whole; a later call goes on there.
    ``reached`` is told position and size. Raises ``CommandFailed``, ``OSError`` and ``grpc.RpcError``.
    """
    must_be_free(path)
    part = path.with_name(path.name + PART)
    with _opened(part, keep=wanted.resumes) as file:
        receiving = _Receiving(wanted, file, path, perseverance, reached)
        # What an earlier command left may be of something else: then all of it comes once more.
        if not (wanted.resumes and _size(file) and receiving.go_on()):
            file.truncate(0)
            receiving.run()
            if not _is_right(wanted, file):
                file.truncate(0)
                raise _wrong(path)
        os.fsync(file.fileno())
        size = _size(file)
    _put(part, path)
    return size


def must_be_free(path: Path) -> None:
    """Raise ``CommandFailed`` where there is something already."""
    if path.exists() or path.is_symlink():
        raise CommandFailed(f"{path}: exists already, and is not overwritten: give another name with --out")


class _Receiving:
    """One download into one open file."""

    def __init__(
        self,
        wanted: Wanted,
        file: IO[bytes],
        path: Path,
        perseverance: Perseverance,
        reached: Callable[[int, int], None],
    ) -> None:
        self._wanted = wanted
        self._file = file
        self._path = path
        self._perseverance = perseverance
        self._reached = reached
        self._total: int | None = None

    def go_on(self) -> bool:
        """Complete what an earlier command left; False where it is not of this, or too long for it."""
        if _is_right(self._wanted, self._file):
            return True
        try:
            self.run()
        except grpc.RpcError as error:
            if Failure.of(error).code not in _TOO_FAR:
                raise
            return False
        return _is_right(self._wanted, self._file)

    def run(self) -> None:
        """Receive from the end of the file on until it is whole."""
        while True:
            try:
                self._once()
            except grpc.RpcError as error:
                self._perseverance.after(error)
                if not self._wanted.resumes:
                    self._file.truncate(0)
            else:
                return

    def _once(self) -> None:
        position = self._file.seek(0, os.SEEK_END)
        call = self._wanted.begin(position)
        try:
            for piece in call:
                self._check(piece, position)
                self._file.write(piece.data)
                position += len(piece.data)
                self._perseverance.reached(position)
                self._reached(position, piece.total_bytes)
        finally:
            self._file.flush()
            _cancel(call)
        if self._total is None and not position:
            raise CommandFailed(f"{self._path.name}: the server sent nothing, and did not say why")
        if self._total is not None and position < self._total:
            raise CommandFailed(
                f"{self._path.name}: the server ended after {position:,} of {self._total:,} bytes: run the "
                "command again, which goes on there"
            )

    def _check(self, piece: Piece, position: int) -> None:
        if piece.offset != position:
            raise CommandFailed(
                f"{self._path.name}: the server sent bytes from {piece.offset:,} on, and {position:,} "
                "was asked for"
            )
        if self._total is None or not position:
            self._total = piece.total_bytes
        if piece.total_bytes != self._total or position + len(piece.data) > self._total:
            raise CommandFailed(
                f"{self._path.name}: the server sends more than it said, or something else: run the command "
                "again"
            )


@contextmanager
def _opened(part: Path, *, keep: bool) -> Iterator[IO[bytes]]:
    """Open a file that is not whole yet; where that fails it stays, if it has anything and may be kept."""
    # Whoever may write the folder could have put a link here, to have another file overwritten.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(part, flags, 0o644), "r+b") as file:
        try:
            yield file
        except BaseException:
            if not keep or not _size(file):
                part.unlink(missing_ok=True)
            raise


def _size(file: IO[bytes]) -> int:
    return os.fstat(file.fileno()).st_size


def _is_right(wanted: Wanted, file: IO[bytes]) -> bool:
    if not wanted.sha256:
        return True
    digest = hashlib.sha256()
    file.seek(0)
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest() == wanted.sha256


def _wrong(path: Path) -> CommandFailed:
    return CommandFailed(
        f"{path.name}: what the server sent is not what its digest says: do not use it; look at the server's "
        "store. Nothing was kept"
    )


def _put(part: Path, path: Path) -> None:
    """Give a whole file its name, unless somebody else took it meanwhile."""
    try:
        os.link(part, path)
    except FileExistsError:
        must_be_free(path)
        raise
    except OSError:  # a file system without hard links
        must_be_free(path)
        part.rename(path)
    else:
        part.unlink()


def _cancel(call: Any) -> None:
    # What is left open would be sent on, until the process ends.
    if hasattr(call, "cancel"):
        call.cancel()
