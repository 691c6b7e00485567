"""Artefacts on their way in: in parts, resumed where they stand, whole by their digest or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from controlplane.clock import Clock, to_micros
from controlplane.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable, invalid
from controlplane.ids import new_id
from controlplane.packaging.blobs import FULL, PART_BYTES, BlobMissing, Blobs
from controlplane.packaging.requests import REQUEST_MEMORY, Request
from controlplane.packaging.rules import PieceRefused, after_piece
from controlplane.packaging.store import requests
from controlplane.packaging.store import uploads as stored
from controlplane.packaging.store.uploads import UploadRecord
from controlplane.storage.database import Database
from controlplane.storage.unit_of_work import UnitOfWork

_SWEEP_STEP = 100


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of an upload: ``upload_id`` is empty in all but the first of a call."""

    upload_id: str
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class UploadPolicy:
    """How large an artefact may be, in bytes, and how long an upload may take."""

    most_bytes: int
    kept_for: timedelta


class Uploads:
    """Use cases around uploads.

    ``scratch`` is a folder on a disk of this machine's own; ``kept`` is told how many bytes were kept.
    """

    def __init__(
        self,
        database: Database,
        blobs: Blobs,
        clock: Clock,
        policy: UploadPolicy,
        scratch: Path,
        kept: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._clock = clock
        self._policy = policy
        self._scratch = scratch
        self._kept = kept

    async def start(
        self, creator: str, file_name: str, size: int, sha256: str, request_id: str = ""
    ) -> UploadRecord:
        """Begin an upload, or find the one that the same call began.

        Complete at once where the artefact is there, which pipelines then know by this name: what it is
        called must agree with what it is, and the first caller may have erred. Raises ``InvalidArgument``,
        REQUEST_ID_REUSED where the request_id stands for another artefact.
        """
        if size > self._policy.most_bytes:
            raise invalid(
                "size_bytes",
                f"{size} is more than the {self._policy.most_bytes} bytes that are taken here",
            )
        now = to_micros(self._clock.now())
        expires = now + self._policy.kept_for // timedelta(microseconds=1)
        request = Request.of(creator, request_id, "upload", file_name, size, sha256)
        upload = UploadRecord(new_id(now), file_name, size, sha256, 0, False, creator, now, expires)
        async with self._database.unit_of_work() as work:
            if before := await self._began(work, request):
                return before
            if known := await stored.find_artefact(work.connection, sha256):
                if known.size != size:
                    raise invalid("size_bytes", f"{size} is not the size of {sha256}, which is {known.size}")
                upload = replace(upload, committed=size, complete=True)
                await stored.rename_artefact(work, sha256, file_name)
            await stored.insert_upload(work, upload)
            await request.has_made(work, upload.upload_id, now)
        return upload

    async def _began(self, work: UnitOfWork, request: Request) -> UploadRecord | None:
        upload_id = await request.made(work)
        if upload_id is None:
            return None
        found = await stored.find_upload(work.connection, upload_id)
        if found is None:
            # Its time was over, and it is begun anew.
            await request.is_void(work)
        return found

    async def get(self, upload_id: str) -> UploadRecord:
        """Return an upload. Raises ``NotFound`` UPLOAD_UNKNOWN."""
        async with self._database.reading() as connection:
            found = await stored.find_upload(connection, upload_id)
        if found is None:
            raise NotFound(
                "UPLOAD_UNKNOWN",
                f"upload: there is no uploads/{upload_id}, or its time is over; start anew",
            )
        return found

    async def take(self, pieces: AsyncIterator[Piece]) -> UploadRecord:
        """Take pieces in, from where the upload stands; returns where it stands after the last.

        What is acknowledged is kept in parts of ``PART_BYTES``; what a call that is cut off had in hand
        beyond the last part is sent again. Raises ``InvalidArgument`` PROTOCOL_VIOLATION and
        DIGEST_MISMATCH, ``FailedPrecondition`` UPLOAD_OFFSET, ``NotFound`` UPLOAD_UNKNOWN.
        """
        upload, held = None, bytearray()
        async for piece in pieces:
            upload = await self._upload_of(upload, piece)
            self._fits(upload, len(held), piece)
            held += piece.data
            if len(held) >= PART_BYTES:
                upload, held = await self._keep(upload, held), bytearray()
        if upload is None:
            raise InvalidArgument("PROTOCOL_VIOLATION", "no message came; send the upload's pieces")
        if held:
            upload = await self._keep(upload, held)
        if upload.committed == upload.size and not upload.complete:
            upload = await self._finish(upload)
        return upload

    async def _upload_of(self, upload: UploadRecord | None, piece: Piece) -> UploadRecord:
        if upload is None:
            if not piece.upload_id:
                raise InvalidArgument("PROTOCOL_VIOLATION", "upload: the first message names it")
            return await self.get(piece.upload_id)
        if piece.upload_id not in ("", upload.upload_id):
            raise InvalidArgument("PROTOCOL_VIOLATION", "upload: all pieces of a call are of one upload")
        return upload

    def _fits(self, upload: UploadRecord, held: int, piece: Piece) -> None:
        try:
            after_piece(upload.committed + held, upload.size, piece.offset, len(piece.data))
        except PieceRefused as refused:
            raise FailedPrecondition(
                "UPLOAD_OFFSET", str(refused), metadata={"committed_bytes": str(upload.committed)}
            ) from None

    async def _keep(self, upload: UploadRecord, held: bytearray) -> UploadRecord:
        committed = upload.committed + len(held)
        with _room():
            await self._blobs.put_part(upload.upload_id, upload.committed, bytes(held))
        async with self._database.unit_of_work() as work:
            if not await stored.advance(work, upload.upload_id, upload.committed, committed):
                raise FailedPrecondition(
                    "UPLOAD_OFFSET", "another call goes on with this upload; ask GetUpload where it stands"
                )
        self._kept(len(held))
        return replace(upload, committed=committed)

    async def _finish(self, upload: UploadRecord) -> UploadRecord:
        with _room(), tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            whole = Path(folder) / "artefact"
            try:
                digest = await self._blobs.join_parts(upload.upload_id, whole)
            except BlobMissing:
                digest = ""
            if digest != upload.sha256:
                await self._begin_again(upload)
                raise InvalidArgument(
                    "DIGEST_MISMATCH",
                    f"sha256: the bytes that came have {digest or 'gaps'}, and {upload.sha256} was "
                    "announced; they are thrown away: upload them again",
                )
            await self._blobs.put_file(whole, upload.sha256)
        async with self._database.unit_of_work() as work:
            await stored.complete(work, upload, to_micros(self._clock.now()))
        await self._blobs.delete_upload(upload.upload_id)
        return replace(upload, complete=True)

    async def _begin_again(self, upload: UploadRecord) -> None:
        async with self._database.unit_of_work() as work:
            await stored.restart(work, upload.upload_id)
        await self._blobs.delete_upload(upload.upload_id)

    async def sweep(self) -> int:
        """Throw away uploads whose time is over, with their parts; returns how many."""
        count = 0
        while True:
            now = to_micros(self._clock.now())
            async with self._database.reading() as connection:
                over = await stored.expired(connection, now, _SWEEP_STEP)
            if not over:
                return count
            for upload_id in over:
                await self._blobs.delete_upload(upload_id)
            async with self._database.unit_of_work() as work:
                await stored.delete_uploads(work, over)
            count += len(over)

    async def forget_requests(self) -> int:
        """Forget calls that nobody repeats any more; returns how many."""
        before = to_micros(self._clock.now() - REQUEST_MEMORY)
        async with self._database.unit_of_work() as work:
            return await requests.forget_before(work, before)


@contextmanager
def _room() -> Iterator[None]:
    """Refuse what there is no room for, so that the caller goes on where it stands once there is some."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise Unavailable("UNAVAILABLE", "artefacts cannot be stored: the disk is full") from None
