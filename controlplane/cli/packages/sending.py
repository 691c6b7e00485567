"""Sending a file into the factory: announced by its digest, gone on with where the server stands."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final
from uuid import uuid4

import grpc
from fleetwright.errors import Failure
from fleetwright.v1.packaging_service_pb2 import (
    GetUploadRequest,
    StartUploadRequest,
    Upload,
    UploadArtefactRequest,
)

from controlplane.cli.bars import TransferBar
from controlplane.cli.calling import explain
from controlplane.cli.connection import Client
from controlplane.cli.failures import CommandFailed, Exit
from controlplane.cli.output import Output
from controlplane.cli.persevering import Perseverance
from controlplane.cli.tasks.creating import surely

PIECE: Final = 1024 * 1024
"""The most that one message may carry (UploadArtefactRequest.data)."""

LARGEST: Final = 16 * 1024**3
"""StartUploadRequest.size_bytes takes no more; a server may be set to take less."""

LONGEST_NAME: Final = 255
"""StartUploadRequest.file_name, in bytes."""

_FORGOTTEN = frozenset({"UPLOAD_UNKNOWN", "REQUEST_ID_REUSED"})
"""What a server says of an upload whose time is over; another one is begun."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file as it was when it was read."""

    path: Path
    size: int
    sha256: str


class FileChanged(CommandFailed):
    """The file is not any more what was announced of it."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path}: changed while it was sent: run the command again when it is complete")


def read_file(path: Path, largest: int, reached: Callable[[int], None]) -> LocalFile:
    """Read a file for its size and its digest. Raises ``CommandFailed`` and ``OSError``."""
    digest, size = hashlib.sha256(), 0
    with opened(path, largest) as file:
        while piece := file.read(PIECE):
            digest.update(piece)
            size += len(piece)
            reached(size)
    return LocalFile(path, size, digest.hexdigest())


@contextmanager
def opened(path: Path, largest: int) -> Iterator[IO[bytes]]:
    """Open a file that can be sent; what is none, is empty or too large raises ``CommandFailed``."""
    # A pipe that nobody writes to would hold the opening up.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _must_be_sendable(path, os.fstat(handle), largest)
        with open(handle, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(handle)


def _must_be_sendable(path: Path, found: os.stat_result, largest: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise CommandFailed(f"{path}: is no regular file: give one", Exit.USAGE)
    if not found.st_size:
        raise CommandFailed(f"{path}: is empty: nothing can be made of it", Exit.USAGE)
    if found.st_size > largest:
        raise CommandFailed(f"{path}: has {found.st_size:,} bytes; {largest:,} are allowed", Exit.USAGE)


def name_of(path: Path, given: str | None) -> str:
    """Return the name under which a file is announced. Raises ``CommandFailed``."""
    name = path.name if given is None else given
    if not _is_name(name):
        raise CommandFailed(
            f"--name {name!r}: the file's name has to be 1 to {LONGEST_NAME} bytes of UTF-8 without slashes "
            "and control characters: give another one with --name",
            Exit.USAGE,
        )
    return name


def _is_name(name: str) -> bool:
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return False
    return 0 < length <= LONGEST_NAME and not any(char in "/\\" or ord(char) < 32 for char in name)


def send_file(client: Client, output: Output, path: Path, name: str) -> Upload:
    """Upload a file and return the complete upload; a server that has the bytes gets none.

    A call that is cut off is gone on with where the server stands; so is, by a later command, what this one
    left. Shows a bar. Raises ``CommandFailed`` and ``grpc.RpcError``.
    """
    with TransferBar(output, f"reading {name}", path.stat().st_size) as bar:
        file = read_file(path, LARGEST, bar.at)
        bar.doing(f"sending {name}", file.size)
        sending = _Sending(client, output, file, name, bar.at)
        try:
            return sending.run()
        except grpc.RpcError as error:
            raise sending.explained(error) from None
        except KeyboardInterrupt:
            output.note(f"{name}: {sending.standing()}")
            raise


class _Sending:
    """One file on its way."""

    def __init__(
        self, client: Client, output: Output, file: LocalFile, name: str, reached: Callable[[int], None]
    ) -> None:
        self._client = client
        self._output = output
        self._file = file
        self._name = name
        self._reached = reached
        self._upload = Upload()
        self._perseverance = Perseverance(lambda text: output.note(f"{name}: {text}"))

    def run(self) -> Upload:
        """Send what the server does not have."""
        self._upload = self._start()
        while not self._upload.artefact:
            self._perseverance.reached(self._upload.committed_bytes)
            try:
                self._upload = self._send_rest()
            except grpc.RpcError as error:
                self._after(error)
        self._reached(self._file.size)
        return self._upload

    def standing(self) -> str:
        """Return what becomes of an upload that ends here, for people."""
        have = f"the server has {self._upload.committed_bytes:,} of {self._file.size:,} bytes or more"
        return f"{have}: the same command goes on there"

    def explained(self, error: grpc.RpcError) -> CommandFailed:
        """Return what an error means, with what to do."""
        failure = Failure.of(error)
        failed = explain(failure, self._client)
        if failure.reason == "DIGEST_MISMATCH":
            failed.hint = f"{self._file.path} may have changed while it was sent: run the command again."
        elif self._upload.name and not failure.answered:
            failed.hint = f"{self._name}: {self.standing()}."
        return failed

    def _start(self) -> Upload:
        """Begin the upload, or find the one that an earlier command began for the same file."""
        request = StartUploadRequest(
            file_name=self._name,
            size_bytes=self._file.size,
            sha256=self._file.sha256,
            request_id=_request_id(self._file, self._name),
        )
        try:
            return self._started(request)
        except grpc.RpcError as error:
            if Failure.of(error).reason not in _FORGOTTEN:
                raise
        request.request_id = str(uuid4())
        return self._started(request)

    def _started(self, request: StartUploadRequest) -> Upload:
        try:
            upload: Upload = surely(
                self._client, self._client.packaging.StartUpload, request, self._output
            ).upload
        except CommandFailed as failed:
            failed.hint = ""  # the same file finds its upload again, without anything said
            raise
        return upload

    def _send_rest(self) -> Upload:
        """Send from where the server stands; return the upload after that."""
        pieces = _Pieces(self._upload, self._file, self._reached)
        try:
            upload: Upload = self._client.packaging.UploadArtefact(iter(pieces)).upload
        except grpc.RpcError:
            if pieces.failed is not None:
                raise pieces.failed from None
            raise
        if pieces.failed is not None:
            raise pieces.failed
        if not upload.artefact and upload.committed_bytes <= self._upload.committed_bytes:
            raise CommandFailed(
                f"{self._name}: the server took no more than {upload.committed_bytes:,} of "
                f"{self._file.size:,} bytes, and did not say why: look at its log"
            )
        return upload

    def _after(self, error: grpc.RpcError) -> None:
        """Find out where to go on after a call that failed; raises where that does not help."""
        reason = Failure.of(error).reason
        if reason == "UPLOAD_UNKNOWN":
            self._begin_anew(error)
            return
        if reason != "UPLOAD_OFFSET" or not self._moved():
            self._perseverance.after(error)
            self._ask_where()

    def _moved(self) -> bool:
        """Return whether the server stands elsewhere than was thought: sending from there may help."""
        before = self._upload.committed_bytes
        self._ask_where()
        return bool(self._upload.committed_bytes != before)

    def _ask_where(self) -> None:
        while True:
            try:
                request = GetUploadRequest(name=self._upload.name)
                self._upload = self._client.packaging.GetUpload(request).upload
            except grpc.RpcError as error:
                if Failure.of(error).reason == "UPLOAD_UNKNOWN":
                    self._begin_anew(error)
                    return
                self._perseverance.after(error)
            else:
                return

    def _begin_anew(self, error: grpc.RpcError) -> None:
        """Begin another upload in the place of one that the server does not know any more."""
        former = self._upload.name
        self._upload = self._start()
        if self._upload.name == former:
            raise error


class _Pieces:
    """The rest of a file as messages. A thread of gRPC's reads them, and nothing may be raised there."""

    def __init__(self, upload: Upload, file: LocalFile, reached: Callable[[int], None]) -> None:
        self._upload = upload
        self._file = file
        self._reached = reached
        self.failed: CommandFailed | None = None

    def __iter__(self) -> Iterator[UploadArtefactRequest]:
        try:
            yield from self._messages()
        except OSError as error:
            self.failed = CommandFailed(f"{self._file.path}: {error.strerror or error}")
        except CommandFailed as failed:
            self.failed = failed

    def _messages(self) -> Iterator[UploadArtefactRequest]:
        offset = int(self._upload.committed_bytes)
        with opened(self._file.path, LARGEST) as file:
            file.seek(offset)
            while offset < self._file.size:
                data = file.read(min(PIECE, self._file.size - offset))
                if not data:
                    raise FileChanged(self._file.path)
                yield UploadArtefactRequest(upload=self._upload.name, offset=offset, data=data)
                offset += len(data)
                self._reached(offset)


def _request_id(file: LocalFile, name: str) -> str:
    """Return the id by which a later command finds what this one began of the same file."""
    told = f"{name}\n{file.size}\n{file.sha256}"
    return f"upload-{hashlib.sha256(told.encode()).hexdigest()[:40]}"
