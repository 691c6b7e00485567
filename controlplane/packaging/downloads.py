"""Stored bytes on their way out, in pieces, verified while they go.

The last piece is held back until the digest of all bytes before it and in it is right: nobody gets the
whole of something that was changed in the store. What is skipped because the reader has it already is read
and hashed too.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any

from obstore.exceptions import BaseError

from controlplane.errors import NotFound, invalid
from controlplane.packaging.blobs import PART_BYTES, BlobDamaged, BlobMissing, Blobs
from controlplane.packaging.repository import damaged
from controlplane.packaging.store import releases
from controlplane.storage.database import Database

PACKAGE_PART = "package"
"""The name of a package's own bytes among its parts."""

DOCUMENTS = ("cyclonedx", "spdx")
"""The bill of materials in both forms, as stage SBOM wrote it; what is signed is the attestation of it."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of ``total`` bytes."""

    offset: int
    data: bytes
    total: int


async def verified(
    blobs: Blobs, sha256: str, size: int, offset: int, piece_bytes: int
) -> AsyncGenerator[Piece, None]:
    """Yield what is stored under a digest from ``offset`` on, one piece at least.

    ``size`` is what it has to have. Raises ``InvalidArgument`` for an offset behind the end, ``Unavailable``
    where the bytes are gone, and ``DataLoss`` where they are not what they were, before the last piece.
    """
    if offset > size:
        raise invalid("offset", f"{offset} is behind the end, at {size}")
    try:
        async for piece in _checked(blobs, sha256, size, offset, piece_bytes):
            yield piece
    except (BlobMissing, BlobDamaged, BaseError, OSError) as error:
        raise damaged(sha256, error) from None


async def _checked(
    blobs: Blobs, sha256: str, size: int, offset: int, piece_bytes: int
) -> AsyncIterator[Piece]:
    if (found := await blobs.size(sha256)) != size:
        raise BlobDamaged(f"{found} bytes are stored, where {size} belong")
    digest = await _hashed_before(blobs, sha256, offset)
    at, held = offset, b""
    async for data in blobs.read(sha256, offset, piece_bytes):
        digest.update(data)
        if held:
            yield Piece(at, held, size)
            at += len(held)
        held = data
    if digest.hexdigest() != sha256:
        raise BlobDamaged(f"the stored bytes have the digest {digest.hexdigest()}")
    yield Piece(at, held, size)


async def _hashed_before(blobs: Blobs, sha256: str, offset: int) -> Any:
    digest, left = hashlib.sha256(), offset
    if left:
        async for data in blobs.read(sha256, 0, min(PART_BYTES, offset)):
            await asyncio.to_thread(digest.update, data[:left])
            left -= min(left, len(data))
            if not left:
                break
    return digest


class Downloads:
    """What administrators fetch of packages, released or not: what policy refused is evidence too."""

    def __init__(self, database: Database, blobs: Blobs) -> None:
        self._database = database
        self._blobs = blobs

    async def package(
        self, package_sha256: str, part: str, offset: int, length: int, piece_bytes: int = 1 << 20
    ) -> AsyncIterator[Piece]:
        """Yield a range of a part of a package: ``length`` bytes at most, 0 for all to the end.

        ``part`` is empty or "package" for its bytes, the kind of an attestation, or one of ``DOCUMENTS``. A
        range that goes to the end is verified, with all before it; of another one the reader has to verify
        the whole.
        Raises ``NotFound`` PACKAGE_UNKNOWN, ``InvalidArgument``, ``Unavailable`` and ``DataLoss``.
        """
        async with self._database.reading() as connection:
            found = await releases.find(connection, package_sha256)
            envelope = await releases.envelope(connection, package_sha256, part)
            document = (
                await releases.document(connection, package_sha256, part) if part in DOCUMENTS else None
            )
        if found is None:
            raise NotFound("PACKAGE_UNKNOWN", f"name: there is no packages/{package_sha256}")
        whole: AsyncIterator[Piece]
        if part in ("", PACKAGE_PART):
            whole = verified(self._blobs, package_sha256, found.size, offset, piece_bytes)
        elif envelope is not None:
            whole = _pieces(envelope, offset, piece_bytes)
        elif document is not None:
            whole = self._document(document, offset, piece_bytes)
        else:
            kinds = ", ".join([PACKAGE_PART, *(kind for kind, _ in found.evidence), *DOCUMENTS])
            raise NotFound("PACKAGE_UNKNOWN", f"part: there is no {part!r}: there are {kinds}")
        async for piece in _at_most(whole, length):
            yield piece

    async def _document(self, sha256: str, offset: int, piece_bytes: int) -> AsyncIterator[Piece]:
        try:
            size = await self._blobs.size(sha256)
        except BlobMissing as error:
            raise damaged(sha256, error) from None
        async for piece in verified(self._blobs, sha256, size, offset, piece_bytes):
            yield piece


async def _pieces(content: bytes, offset: int, piece_bytes: int) -> AsyncIterator[Piece]:
    total = len(content)
    if offset > total:
        raise invalid("offset", f"{offset} is behind the end, at {total}")
    for at in range(offset, max(total, offset + 1), piece_bytes):
        yield Piece(at, content[at : at + piece_bytes], total)


async def _at_most(pieces: AsyncIterator[Piece], length: int) -> AsyncIterator[Piece]:
    left = length
    async for piece in pieces:
        if not length:
            yield piece
            continue
        yield Piece(piece.offset, piece.data[:left], piece.total)
        left -= len(piece.data)
        if left <= 0:
            return
