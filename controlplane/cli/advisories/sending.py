"""Sending an export: a zip as it is, a folder of records as one."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

import grpc
from fleetwright.v1.advisory_service_pb2 import (
    ImportAdvisoriesRequest,
    ImportAdvisoriesResponse,
    ImportOpen,
)

from controlplane.cli.bars import TransferBar
from controlplane.cli.connection import Client
from controlplane.cli.failures import CommandFailed
from controlplane.cli.output import Output
from controlplane.cli.packages.sending import PIECE, FileChanged, LocalFile, opened, read_file
from controlplane.cli.values import timestamp_message
from controlplane.packaging.advisories.exports import Export, members, read

LARGEST: Final = 4 * 1024**3
"""ImportOpen.size_bytes takes no more; a server may be set to take less."""

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip knows: the same records twice give the same bytes."""


def send_export(
    client: Client, output: Output, export: Export, exported: datetime | None, *, accept_rollback: bool
) -> ImportAdvisoriesResponse:
    """Send an export, and wait until it is in force and every package was judged by it.

    It is not gone on with after a cut: nothing of it counts before all of it is there. Shows a bar. Raises
    ``CommandFailed``, ``ExportError``, ``OSError`` and ``grpc.RpcError``.
    """
    name = f"{export.ecosystem} advisories".lstrip()
    with TransferBar(output, f"reading {name}", 0) as bar, _as_zip(export, bar.at) as path:
        file = read_file(path, LARGEST, bar.at)
        opening = ImportOpen(
            size_bytes=file.size,
            sha256=file.sha256,
            allow_older=accept_rollback,
            ecosystem=export.ecosystem,
        )
        if exported is not None:
            opening.exported_time.CopyFrom(timestamp_message(exported))
        bar.doing(f"sending {name}", file.size)
        requests = _Requests(opening, file, bar.at, lambda: bar.doing(f"importing {name}", 0))
        return _sent(client, requests)


def _sent(client: Client, requests: _Requests) -> ImportAdvisoriesResponse:
    try:
        return client.advisories.ImportAdvisories(iter(requests))
    except grpc.RpcError:
        if requests.failed is not None:
            raise requests.failed from None
        raise


@contextmanager
def _as_zip(export: Export, reached: Callable[[int], None]) -> Iterator[Path]:
    """Give an export as one file; a folder is packed into a temporary one."""
    if export.is_zip:
        yield export.path
        return
    with tempfile.TemporaryDirectory(prefix="fleetwright-advisories-") as folder:
        path = Path(folder) / "all.zip"
        _pack(export, path, reached)
        yield path


def _pack(export: Export, path: Path, reached: Callable[[int], None]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        total = 0
        for name, content in read(export, members(export)):
            member = zipfile.ZipInfo(name, _EPOCH)
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, content)
            total += len(content)
            reached(total)


class _Requests:
    """The messages of an import. A thread of gRPC's reads them, and nothing may be raised there."""

    def __init__(
        self,
        opening: ImportOpen,
        file: LocalFile,
        reached: Callable[[int], None],
        done: Callable[[], None],
    ) -> None:
        self._opening = opening
        self._file = file
        self._reached = reached
        self._done = done
        self.failed: CommandFailed | None = None

    def __iter__(self) -> Iterator[ImportAdvisoriesRequest]:
        try:
            yield ImportAdvisoriesRequest(open=self._opening)
            yield from self._data()
            self._done()
        except OSError as error:
            self.failed = CommandFailed(f"{self._file.path}: {error.strerror or error}")
        except CommandFailed as failed:
            self.failed = failed

    def _data(self) -> Iterator[ImportAdvisoriesRequest]:
        position = 0
        with opened(self._file.path, LARGEST) as file:
            while position < self._file.size:
                data = file.read(min(PIECE, self._file.size - position))
                if not data:
                    raise FileChanged(self._file.path)
                yield ImportAdvisoriesRequest(data=data)
                position += len(data)
                self._reached(position)
