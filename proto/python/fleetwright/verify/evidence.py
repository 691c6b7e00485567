"""Whether a package may be installed: what the repository released, and what was attested of it, put
together.

The checks stand in the order in which trust is passed on: from the trusted root to the metadata (``tuf``), to
the package's bytes (``release``), to those who may attest (``keys``) and to what they attested
(``attestations``, then those of ``chain``). Each is made as far as it can be, also after one before it
failed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from fleetwright.verify.chain import verify_attestations
from fleetwright.verify.errors import Expired, NotFound, TufError, UnknownTarget, VerificationError
from fleetwright.verify.fetching import CHUNK
from fleetwright.verify.keys import KEYS_TARGET, AttestationKeys, parse_keys
from fleetwright.verify.reports import Check, Report, missing, ok, wrong
from fleetwright.verify.tuf_client import Release, TufClient

ATTESTATIONS_SUFFIX: Final = ".attestations.jsonl"
"""A package's attestations are a target beside it, so that nobody can hold the newest of them back."""

LARGEST_PACKAGE: Final = 16 * 1024**3
"""Bytes that are read of a package of which no release says how long it is."""

Chunks = Callable[[], Iterator[bytes]]


@dataclass(frozen=True, slots=True)
class Parts:
    """What was delivered, from wherever; nothing of it is trusted. None for what is not there."""

    package: Chunks | None
    """Gives the package's bytes; may raise ``VerificationError`` while it does."""
    attestations: bytes | None
    keys: bytes | None
    """The document of ``keys.KEYS_TARGET``."""


def attestations_path(path: str) -> str:
    """Return the path of the target that holds the attestations of the package ``path``."""
    return f"{path}{ATTESTATIONS_SUFFIX}"


def fetch(client: TufClient, path: str, package: Path, scratch: Path) -> Parts:
    """Fetch a package's attestations, and the keys for them, by the client into the folder ``scratch``.

    ``package`` is the file of the package, wherever it comes from. Raises a ``TufError``.
    """
    attestations, keys = scratch / "attestations.jsonl", scratch / "attestation-keys.json"
    client.download_all({attestations_path(path): attestations, KEYS_TARGET: keys})
    return Parts(lambda: file_chunks(package), attestations.read_bytes(), keys.read_bytes())


def judge(
    client: TufClient, path: str, parts: Parts, now: datetime, lenient: TufClient | None = None
) -> Report:
    """Judge a package that is said to be the target ``path``.

    ``lenient`` is a client for which no metadata is expired: where the metadata is, the checks below go on by
    it, and ``tuf`` still says that it does not hold. Raises nothing.
    """
    tuf, found = _follow(client, path, lenient)
    package, release = _judge_package(found[path], parts.package)
    keys, keys_check = _judge_keys(found[KEYS_TARGET], parts.keys)
    attestations = _judge_attestations(found[attestations_path(path)], parts.attestations)
    chain = verify_attestations(package, parts.attestations or b"", keys, now)
    return Report((tuf, release, keys_check, attestations, *chain))


def file_chunks(path: Path) -> Iterator[bytes]:
    """Give a file in chunks. Raises ``NotFound`` and ``VerificationError``."""
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except FileNotFoundError:
        raise NotFound(f"{path}: there is no such file") from None
    except OSError as error:
        raise VerificationError(f"{path}: {error.strerror}: let this user read it") from None


def _follow(
    client: TufClient, path: str, lenient: TufClient | None
) -> tuple[Check, Mapping[str, Release | TufError]]:
    """Return the check of the metadata, and what it releases under the paths that matter."""
    paths = (path, attestations_path(path), KEYS_TARGET)
    try:
        found = client.find_all(paths)
    except TufError as error:
        said = missing if isinstance(error, NotFound) else wrong
        check = said("tuf", f"{type(error).__name__}: {error}")
        if isinstance(error, Expired) and lenient is not None:
            return check, _follow(lenient, path, None)[1]
        return check, dict.fromkeys(paths, error)
    return ok("tuf", "the metadata is signed, current and of one piece"), found


def _judge_package(release: Release | TufError, package: Chunks | None) -> tuple[str, Check]:
    """Return the digest of the package's bytes, as they are, and the check of them against the release."""
    name = "release"
    known = release.sha256 if isinstance(release, Release) else ""
    if package is None:
        return known, missing(name, "the package itself is not here: get the bundle from its source again")
    most = release.length if isinstance(release, Release) else LARGEST_PACKAGE
    try:
        digest, length = _digest(package(), most)
    except NotFound as error:
        return known, missing(name, str(error))
    except VerificationError as error:
        return known, wrong(name, f"{type(error).__name__}: {error}")
    if isinstance(release, TufError):
        return digest, wrong(name, _unreleased(release))
    try:
        release.check_digest(length, digest)
    except VerificationError as error:
        return digest, wrong(name, f"{type(error).__name__}: {error}")
    return digest, ok(name, f"{release.path}, {release.length} bytes, SHA-256 {digest}")


def _unreleased(error: TufError) -> str:
    if isinstance(error, UnknownTarget):
        return str(error)
    return f"nobody trusted says what it has to be: {type(error).__name__}: {error}"


def _digest(chunks: Iterator[bytes], most: int) -> tuple[str, int]:
    """Return the SHA-256 of what there is, and its length; past ``most`` bytes it is not read on."""
    digest, length = hashlib.sha256(), 0
    for chunk in chunks:
        digest.update(chunk)
        length += len(chunk)
        if length > most:
            break
    return digest.hexdigest(), length


def _judge_keys(release: Release | TufError, content: bytes | None) -> tuple[AttestationKeys | None, Check]:
    name = "keys"
    if content is None:
        return None, missing(name, f"{KEYS_TARGET} is not here: get the bundle from its source again")
    if isinstance(release, TufError):
        return None, wrong(name, _unreleased(release))
    try:
        release.check(iter([content]))
        keys = parse_keys(content)
    except VerificationError as error:
        return None, wrong(name, f"{type(error).__name__}: {error}")
    return keys, ok(name, f"version {keys.version}: {len(keys.attesters)} keys may attest")


def _judge_attestations(release: Release | TufError, content: bytes | None) -> Check:
    name = "attestations"
    if content is None:
        return missing(name, "no attestations are here: get the bundle from its source again")
    if isinstance(release, TufError):
        return wrong(name, _unreleased(release))
    try:
        release.check(iter([content]))
    except VerificationError as error:
        return wrong(name, f"{type(error).__name__}: {error}")
    return ok(name, "they are the ones that were released with the package")
