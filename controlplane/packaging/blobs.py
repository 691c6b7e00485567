"""Bytes by their digest: in a folder now, in an object store when a setting says so.

What is put is there whole or not at all, also after a power cut: it is written beside, synced, renamed, and
its folder synced; only then may a table name it. What is there under a digest may still be an older store's
mistake, so who reads to hand out bytes verifies them on the way.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import obstore
from obstore.exceptions import GenericError
from obstore.store import LocalStore

PART_BYTES = 8 << 20
"""Size of the parts in which uploads and large reads go."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""The error numbers of a disk, or of a quota, that has no room."""


class BlobMissing(Exception):
    """Nothing is stored under this name."""


class BlobDamaged(Exception):
    """What is stored under a digest has another one."""


class Blobs:
    """A store of bytes, of which ``folder`` is the local form."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._store = LocalStore(prefix=folder, mkdir=True)

    # --- by digest

    async def has(self, sha256: str) -> bool:
        """Return whether something is stored under a digest."""
        try:
            await obstore.head_async(self._store, _named(sha256))
        except FileNotFoundError:
            return False
        return True

    async def put_file(self, path: Path, sha256: str) -> None:
        """Store a file under its digest, which the caller knows; again is the same. Blocks no loop.

        Raises ``OSError`` with a number of ``FULL`` where there is no room; nothing is stored then.
        """
        if await self.has(sha256):
            if await self.verify(sha256):
                return
            await obstore.delete_async(self._store, _named(sha256))
        with _room():
            await obstore.put_async(self._store, _named(sha256), path)
        await asyncio.to_thread(self._sync, _named(sha256))

    async def read(self, sha256: str, offset: int = 0, piece: int = 256 << 10) -> AsyncIterator[bytes]:
        """Yield what is stored from ``offset`` on, in pieces. Raises ``BlobMissing``."""
        size = await self.size(sha256)
        while offset < size:
            end = min(size, offset + piece)
            yield bytes(await obstore.get_range_async(self._store, _named(sha256), start=offset, end=end))
            offset = end

    async def size(self, sha256: str) -> int:
        """Return how many bytes are stored under a digest. Raises ``BlobMissing``."""
        try:
            return int((await obstore.head_async(self._store, _named(sha256)))["size"])
        except FileNotFoundError:
            raise BlobMissing(sha256) from None

    async def verify(self, sha256: str) -> bool:
        """Return whether what is stored has the digest that it is stored under. Raises ``BlobMissing``."""
        digest = hashlib.sha256()
        async for piece in self.read(sha256, piece=PART_BYTES):
            await asyncio.to_thread(digest.update, piece)
        return digest.hexdigest() == sha256

    async def fetch(self, sha256: str, path: Path) -> None:
        """Write what is stored to a new file, verified. Raises ``BlobMissing`` and ``BlobDamaged``."""
        digest = hashlib.sha256()
        with path.open("xb") as file:
            async for piece in self.read(sha256, piece=PART_BYTES):
                digest.update(piece)
                await asyncio.to_thread(file.write, piece)
        if digest.hexdigest() != sha256:
            await asyncio.to_thread(path.unlink)
            raise BlobDamaged(f"{sha256}: the stored bytes have the digest {digest.hexdigest()}")

    async def delete(self, sha256: str) -> None:
        """Remove what is stored under a digest; nothing there is no error."""
        try:
            await obstore.delete_async(self._store, _named(sha256))
        except FileNotFoundError:
            return

    # --- uploads, in parts until they are whole

    async def put_part(self, upload_id: str, offset: int, data: bytes) -> None:
        """Store a part of an upload, in the place of what was at that offset. Raises as ``put_file``."""
        name = _part(upload_id, offset)
        with _room():
            await obstore.put_async(self._store, name, data, mode="overwrite")
        await asyncio.to_thread(self._sync, name)

    async def join_parts(self, upload_id: str, path: Path) -> str:
        """Write an upload's parts to a new file; returns its digest. Raises ``BlobMissing`` where one is."""
        digest, expected = hashlib.sha256(), 0
        with path.open("xb") as file:
            for name in sorted(await self._parts(upload_id)):
                if int(name.rpartition("/")[2]) != expected:
                    raise BlobMissing(f"the part at {expected} of upload {upload_id}")
                part = await obstore.get_async(self._store, name)
                data = bytes(await part.bytes_async())
                expected += len(data)
                digest.update(data)
                await asyncio.to_thread(file.write, data)
        return digest.hexdigest()

    async def _parts(self, upload_id: str) -> list[str]:
        pages = obstore.list(self._store, f"uploads/{upload_id}")
        return [part["path"] async for page in pages for part in page]

    async def delete_upload(self, upload_id: str) -> None:
        """Remove every part of an upload."""
        if names := await self._parts(upload_id):
            await obstore.delete_async(self._store, names)

    # --- durability of the local form

    def sweep(self, older_than: timedelta = timedelta(days=1)) -> int:
        """Remove what processes were writing that were killed; returns how many files. Blocks.

        The library writes beside, under the name with a number behind it, and a name of ours has no such
        sign. What is younger may still be on its way.
        """
        oldest, removed = time.time() - older_than.total_seconds(), 0
        for path in self._folder.rglob("*#[0-9]*"):
            with suppress(FileNotFoundError):  # It was renamed, or another process sweeps too.
                if path.lstat().st_mtime < oldest:
                    path.unlink()
                    removed += 1
        return removed

    def _sync(self, name: str) -> None:
        path = self._folder / name
        for one in (path, *_folders(path, self._folder)):
            descriptor = os.open(one, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


@contextmanager
def _room() -> Iterator[None]:
    """Let the store's own error for a full disk be that of the system, which has a number."""
    try:
        yield
    except GenericError as error:
        for number in FULL:
            # The library tells errors apart by their text alone.
            if f"os error {number})" in str(error):
                raise OSError(number, "the disk of the packages is full") from None
        raise


def _folders(path: Path, top: Path) -> Iterator[Path]:
    for folder in path.parents:
        yield folder
        if folder == top:
            return


def _named(sha256: str) -> str:
    return f"sha256/{sha256[:2]}/{sha256}"


def _part(upload_id: str, offset: int) -> str:
    return f"uploads/{upload_id}/{offset:020d}"
