"""Where a repository's files come from: a port, and what implements it over folders and HTTP.

An agent implements ``Fetcher`` over its own stream. A fetcher only moves bytes: it is trusted with nothing,
and may give too many, too few or the wrong ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final, Protocol

from tuf.api import exceptions
from tuf.ngclient import FetcherInterface

from fleetwright.verify.errors import EndlessData, FetchFailed, NotFound, WrongTarget

CHUNK: Final = 256 * 1024
"""Bytes that are read at once."""

_METADATA = "metadata/"
_TARGETS = "targets/"
_UNSAFE = re.compile(r"(^|/)\.{1,2}(/|$)|^/|\\|\0|//")


class Fetcher(Protocol):
    """Where a repository's files come from.

    Both methods give a file in chunks, and raise ``NotFound`` where there is none, ``FetchFailed`` where it
    cannot be had, and where that is known without a look at the bytes ``EndlessData`` and ``WrongTarget``; no
    other exception. They may raise while they give.
    """

    def metadata(self, name: str) -> Iterator[bytes]:
        """Give a metadata file by its name, such as ``3.root.json`` or ``timestamp.json``.

        The name of a role in it is percent-encoded, so that it is one part of a path whatever it holds.
        """

    def target(self, path: str) -> Iterator[bytes]:
        """Give a target by its path, which has its digest before the file's name."""


class FolderFetcher:
    """A repository that lies in two folders, ``metadata`` and ``targets``."""

    def __init__(self, metadata: Path, targets: Path) -> None:
        self._metadata, self._targets = metadata, targets

    def metadata(self, name: str) -> Iterator[bytes]:
        """Give a file of the folder of metadata."""
        return self._chunks(self._metadata, name)

    def target(self, path: str) -> Iterator[bytes]:
        """Give a file of the folder of targets."""
        return self._chunks(self._targets, path)

    def _chunks(self, folder: Path, name: str) -> Iterator[bytes]:
        if _UNSAFE.search(name):
            raise NotFound(f"{name!r}: not a path within a repository")
        try:
            with (folder / name).open("rb") as file:
                while chunk := file.read(CHUNK):
                    yield chunk
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"{folder / name}: there is no such file") from None
        except (OSError, ValueError) as error:
            raise FetchFailed(f"{folder / name}: {error}") from None


class HttpFetcher:
    """A repository behind two URLs. Redirects and proxies are those of python-tuf's own fetcher."""

    def __init__(
        self, metadata_url: str, targets_url: str, timeout: timedelta = timedelta(seconds=30)
    ) -> None:
        from tuf.ngclient.urllib3_fetcher import Urllib3Fetcher  # agents need no urllib3

        self._metadata, self._targets = _with_slash(metadata_url), _with_slash(targets_url)
        self._http = Urllib3Fetcher(socket_timeout=int(timeout.total_seconds()))

    def metadata(self, name: str) -> Iterator[bytes]:
        """Give what is below the URL of metadata."""
        return self._chunks(f"{self._metadata}{name}")

    def target(self, path: str) -> Iterator[bytes]:
        """Give what is below the URL of targets."""
        return self._chunks(f"{self._targets}{path}")

    def _chunks(self, url: str) -> Iterator[bytes]:
        try:
            yield from self._http.fetch(url)
        except exceptions.DownloadHTTPError as error:
            if error.status_code in {403, 404}:  # as stores say of what is missing
                raise NotFound(f"{url}: HTTP {error.status_code}") from None
            raise FetchFailed(f"{url}: HTTP {error.status_code}") from None
        except (exceptions.DownloadError, OSError) as error:
            raise FetchFailed(f"{url}: {error or type(error).__name__}") from None


class Adapter(FetcherInterface):
    """A ``Fetcher`` as python-tuf's updater wants one; keeps what it gave last, by which errors are
    explained.

    ``within`` is how long one file may take, by ``monotonic``, a clock in seconds: data that trickles for
    ever is an attack too.
    """

    metadata_url: Final = _METADATA
    targets_url: Final = _TARGETS

    def __init__(self, fetcher: Fetcher, within: timedelta, monotonic: Callable[[], float]) -> None:
        self._fetcher, self._within, self._monotonic = fetcher, within.total_seconds(), monotonic
        self.name = ""
        """Which file was asked for last."""
        self.content = b""
        """The last metadata file that came whole."""
        self.limit = 0
        """Bytes that were allowed of it."""

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """Fetch a metadata file."""
        self.name, self.content, self.limit = url.removeprefix(_METADATA), b"", max_length
        self.content = super().download_bytes(url, max_length)
        return self.content

    def _fetch(self, url: str) -> Iterator[bytes]:
        end = self._monotonic() + self._within
        with _as_library_errors():
            if url.startswith(_METADATA):
                chunks = self._fetcher.metadata(url.removeprefix(_METADATA))
            else:
                self.name, self.content = url.removeprefix(_TARGETS), b""
                chunks = self._fetcher.target(self.name)
            for chunk in chunks:
                if self._monotonic() > end:
                    raise exceptions.SlowRetrievalError(f"{self.name}: not whole within {self._within:.0f} s")
                yield chunk


@contextmanager
def _as_library_errors() -> Iterator[None]:
    """python-tuf takes a missing root for the end of the chain, and knows that by HTTP's status."""
    try:
        yield
    except NotFound as error:
        raise exceptions.DownloadHTTPError(str(error), 404) from error
    except (FetchFailed, EndlessData, WrongTarget) as error:
        raise exceptions.DownloadError(str(error)) from error


def _with_slash(url: str) -> str:
    return url if url.endswith("/") else f"{url}/"
