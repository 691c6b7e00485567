"""An exported bundle: a package with all the evidence for it, to be verified on a machine that knows no
server.

A bundle is a folder, or a zip of one:

    bundle.json             {"_type": "fleetwright-bundle", "version": 1, "target":
    "stable/curl/curl-8.1.deb"} package                 the bytes that are installed attestations.jsonl
    one DSSE envelope on each line attestation-keys.json   who may attest what: the repository's target
    trust/attestation-keys.json metadata/               N.root.json from the first on, timestamp.json,
    N.snapshot.json, N.targets.json and
                            N.<channel>.json

The trusted root is **not** taken from it: whoever verifies has that from elsewhere. ``bundle.json`` is a hint
and proves nothing; with another target in it, the package is not what that target has to be.

``controlplane/trust/bundles.py`` writes bundles.
"""

from __future__ import annotations

import lzma
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

from fleetwright.verify.chain import LARGEST_ATTESTATIONS
from fleetwright.verify.documents import parse_object
from fleetwright.verify.errors import FetchFailed, Malformed, NotFound, VerificationError
from fleetwright.verify.evidence import Parts, judge
from fleetwright.verify.fetching import CHUNK
from fleetwright.verify.keys import LARGEST_DOCUMENT
from fleetwright.verify.reports import Report, missing, ok, wrong
from fleetwright.verify.tuf_client import TufClient

TYPE: Final = "fleetwright-bundle"
VERSION: Final = 1

MANIFEST: Final = "bundle.json"
PACKAGE: Final = "package"
ATTESTATIONS: Final = "attestations.jsonl"
KEYS: Final = "attestation-keys.json"
METADATA: Final = "metadata/"

MOST_MEMBERS: Final = 4096
"""Of a zip; a bundle has a dozen, and one for each root that was."""

CHECKS: Final = (
    "bundle", "tuf", "release", "keys", "attestations", "signature", "provenance", "sbom", "scan", "verdict",
)  # fmt: skip
"""The names of a report's checks, in their order."""

_NOTHING_EXPIRED: Final = datetime(1970, 1, 1, tzinfo=UTC)

_ZIP_ERRORS: Final = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OSError,
)
"""What zipfile raises for files that are broken, encrypted or packed in a way that it does not know."""


class Source(Protocol):
    """Where a bundle's members are."""

    def chunks(self, name: str) -> Iterator[bytes]:
        """Give a member in chunks. Raises ``NotFound``, and ``FetchFailed`` where it cannot be read."""


@dataclass(frozen=True, slots=True)
class FolderSource:
    """A bundle that is a folder."""

    root: Path

    def chunks(self, name: str) -> Iterator[bytes]:
        """Give a member in chunks; what is no plain file counts as missing."""
        path = self.root / name
        try:
            if not stat.S_ISREG(path.lstat().st_mode):
                raise NotFound(f"{name}: no plain file in the bundle")
            with path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    yield chunk
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"{name}: not in the bundle") from None
        except (OSError, ValueError) as error:
            raise FetchFailed(f"{name}: not readable: {error}") from None


@dataclass(frozen=True, slots=True)
class ZipSource:
    """A bundle that is a zip."""

    archive: zipfile.ZipFile

    def __post_init__(self) -> None:
        names = self.archive.namelist()
        if len(names) > MOST_MEMBERS:
            raise Malformed(
                f"{len(names)} members, where a bundle has at most {MOST_MEMBERS}: this is no bundle"
            )
        if len(set(names)) != len(names):
            raise Malformed("a name stands in it twice, and readers differ in which they take: do not use it")

    def chunks(self, name: str) -> Iterator[bytes]:
        """Give a member in chunks."""
        try:
            with self.archive.open(name) as file:
                while chunk := file.read(CHUNK):
                    yield chunk
        except KeyError:
            raise NotFound(f"{name}: not in the bundle") from None
        except _ZIP_ERRORS as error:
            raise FetchFailed(
                f"{name}: not readable: {error}: get the bundle from its source again"
            ) from None


@dataclass(frozen=True, slots=True)
class _BundleFetcher:
    """The bundle's metadata as a repository; its targets are read by name, and asked for by no client."""

    source: Source

    def metadata(self, name: str) -> Iterator[bytes]:
        return self.source.chunks(f"{METADATA}{name}")

    def target(self, path: str) -> Iterator[bytes]:
        raise NotFound(f"{path}: not fetched from a bundle")


def verify_bundle(path: Path, trusted_root: bytes, now: datetime) -> Report:
    """Verify a bundle at the time ``now``, by a trusted root that was had from elsewhere.

    A bundle is current for as long as its metadata is, mostly about a day: one that is kept is verified as of
    the time at which it was exported. Returns one check for each of ``CHECKS``; raises nothing for what a
    bundle may be.
    """
    try:
        with _opened(path) as source:
            return _verify(source, trusted_root, now)
    except VerificationError as error:
        rest = (missing(name, "the bundle cannot be read") for name in CHECKS[1:])
        return Report((wrong("bundle", f"{path}: {error}"), *rest))


@contextmanager
def _opened(path: Path) -> Iterator[Source]:
    if path.is_dir():
        yield FolderSource(path)
        return
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise NotFound("there is no such file or folder") from None
    except _ZIP_ERRORS as error:
        raise Malformed(f"neither a folder nor a readable zip: {error}") from None
    with archive:
        yield ZipSource(archive)


def _verify(source: Source, trusted_root: bytes, now: datetime) -> Report:
    try:
        target = _target(source)
        bundle = ok("bundle", f"says that it is {target}")
    except NotFound as error:
        target, bundle = "", missing("bundle", str(error))
    except VerificationError as error:
        target, bundle = "", wrong("bundle", str(error))
    with tempfile.TemporaryDirectory(prefix="fleetwright-bundle-") as folder:
        client = _client(Path(folder) / "state", trusted_root, source, now)
        lenient = _client(Path(folder) / "lenient", trusted_root, source, _NOTHING_EXPIRED)
        report = judge(client, target, _parts(source), now, lenient)
    return Report((bundle, *report.checks))


def _client(state: Path, trusted_root: bytes, source: Source, now: datetime) -> TufClient:
    return TufClient(state, trusted_root, _BundleFetcher(source), lambda: now, keep_clock=False)


def _target(source: Source) -> str:
    manifest = parse_object(_read(source, MANIFEST, LARGEST_DOCUMENT), MANIFEST, LARGEST_DOCUMENT)
    if manifest.text("_type") != TYPE:
        raise manifest.wrong("_type", f"{TYPE!r} is expected")
    version = manifest.integer("version")
    if version != VERSION:
        raise manifest.wrong("version", f"{version}, and this program reads {VERSION}: take a newer program")
    return manifest.text("target")


def _parts(source: Source) -> Parts:
    present = _read_or_none(source, PACKAGE, 0) is not None
    return Parts(
        package=(lambda: source.chunks(PACKAGE)) if present else None,
        attestations=_read_or_none(source, ATTESTATIONS, LARGEST_ATTESTATIONS),
        keys=_read_or_none(source, KEYS, LARGEST_DOCUMENT),
    )


def _read_or_none(source: Source, name: str, limit: int) -> bytes | None:
    """Return the beginning of a member; None where there is none. What is broken ends where it breaks."""
    try:
        return _read(source, name, limit)
    except NotFound:
        return None
    except VerificationError:
        return b""


def _read(source: Source, name: str, limit: int) -> bytes:
    """Return a member, or so much of it that whoever has a limit sees that it is too long."""
    content = bytearray()
    for chunk in source.chunks(name):
        content += chunk
        if len(content) > limit:
            break
    return bytes(content)
