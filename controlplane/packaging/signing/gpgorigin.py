"""The signature of a .deb's origin: an ar member ``_gpgorigin`` with a detached OpenPGP signature, by
SHA-512.

It is over the contents of ``debian-binary``, ``control.tar*`` and ``data.tar*``, one after the other, as
debsig-verify reads them; other members are not covered. The final bytes are those with this member:
statements name their digest, and the digest of the unsigned bytes as a material. An OpenPGP signature holds
a time and salt, so that signing again gives other bytes; whoever retries takes the package that was
committed first.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from pysequoia import Sig, SignatureMode, sign_file
from pysequoia.packet import HashAlgorithm

from controlplane.packaging.building import ar
from controlplane.packaging.building.errors import BuildFailed
from controlplane.packaging.building.layout import deb_members
from controlplane.packaging.building.outputs import digest, writing
from controlplane.packaging.signing.keys import OriginKey
from controlplane.packaging.signing.states import SigningFailed

MEMBER: Final = "_gpgorigin"
MAX_SIGNATURE: Final = 65_536
"""Bytes of a signature; ours have about two hundred."""


@dataclass(frozen=True, slots=True)
class DebSignature:
    """What was signed, and by which key."""

    unsigned_sha256: str
    sha256: str
    """Of the final bytes."""
    size: int
    fingerprint: str
    """Of the primary key."""
    signing_key: str
    """Fingerprint of the subkey that signed; debsig-verify looks up its policy by it."""
    created: str
    """RFC 3339."""
    hash_algorithm: str = "SHA512"


def sign_deb(source: Path, output: Path, key: OriginKey, epoch: int) -> DebSignature:
    """Write the .deb at ``source`` to ``output`` with its signature.

    Raises ``SigningFailed``, also for a .deb that has one already; then ``output`` is not there.
    """
    unsigned = _digest(source)
    signature = detached(source, key, output.parent)
    sha256, size = attach(source, output, signature, epoch)
    made = described(signature)
    return DebSignature(unsigned, sha256, size, key.fingerprint, made.signing_key, made.created)


@dataclass(frozen=True, slots=True)
class Described:
    """What a signature says of itself."""

    signing_key: str
    """Fingerprint of the subkey that signed."""
    created: str
    """RFC 3339."""


def described(signature: bytes) -> Described:
    """Read a signature that ``detached`` made; raises ``SigningFailed`` for anything else."""
    try:
        found = Sig.from_bytes(signature)
    except Exception as error:
        raise SigningFailed("SIGNING", f"this is no OpenPGP signature: {error}") from error
    return Described(str(found.issuer_fingerprint), _created(found))


def detached(source: Path, key: OriginKey, scratch: Path) -> bytes:
    """Return a new signature over the .deb at ``source``: other bytes each time.

    Raises ``SigningFailed``, also for a .deb that has one already. ``scratch`` is a folder.
    """
    with _reading(source) as stream:
        return bytes(_signature(stream, _unsigned(stream, source), key, scratch))


def attach(source: Path, output: Path, signature: bytes, epoch: int) -> tuple[str, int]:
    """Write the .deb at ``source`` to ``output`` with a signature; returns the digest and size of that.

    The same signature gives the same bytes. Raises ``SigningFailed``; then ``output`` is not there.
    """
    with _reading(source) as stream:
        _append(stream, _unsigned(stream, source), signature, output, epoch)
        return digest(output)


@contextmanager
def _reading(source: Path) -> Iterator[BinaryIO]:
    try:
        with source.open("rb") as stream:
            yield stream
    except BuildFailed as error:
        raise SigningFailed(error.code, str(error)) from error
    except OSError as error:
        raise SigningFailed("UNREADABLE", f"{source.name} cannot be read: {error.strerror}") from error


def _digest(source: Path) -> str:
    try:
        return digest(source)[0]
    except BuildFailed as error:
        raise SigningFailed(error.code, str(error)) from error


def _unsigned(stream: BinaryIO, source: Path) -> list[ar.Member]:
    members = ar.members(stream)
    if MEMBER in {one.name for one in members}:
        raise SigningFailed("ALREADY_SIGNED", f"{source.name} has a member {MEMBER} already; build it again")
    return members


def _signature(stream: BinaryIO, members: list[ar.Member], key: OriginKey, scratch: Path) -> Sig:
    with signed_content(stream, members, scratch) as content:
        target = content.with_suffix(".sig")
        try:
            sign_file(key.signer, str(content), str(target), mode=SignatureMode.DETACHED, armor=False)
            signature = Sig.from_file(str(target))
        except Exception as error:
            raise SigningFailed("SIGNING", f"the key {key.fingerprint} did not sign: {error}") from error
    if signature.hash_algorithm != HashAlgorithm.SHA512 or not signature.issuer_fingerprint:
        raise SigningFailed("SIGNING", f"the signature is by {signature.hash_algorithm}, not by SHA-512")
    return signature


def _created(signature: Sig) -> str:
    return "" if signature.created is None else signature.created.isoformat()


def _append(stream: BinaryIO, members: list[ar.Member], signature: bytes, output: Path, epoch: int) -> None:
    with writing(output) as target:
        target.write(ar.MAGIC)
        for one in members:
            with ar.member(target, one.name, epoch) as part:
                ar.copy_member(stream, one, part)
        with ar.member(target, MEMBER, epoch) as part:
            part.write(signature)


@contextmanager
def signed_content(stream: BinaryIO, members: list[ar.Member], scratch: Path | None) -> Iterator[Path]:
    """Give a file with what the signature of a .deb is over, in a folder of its own that is removed after it.

    Raises ``BuildFailed`` where the archive is no .deb.
    """
    covered, _ = deb_members(members)
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".signing-") as folder:
        path = Path(folder) / "content"
        with path.open("wb") as content:
            for one in covered:
                ar.copy_member(stream, one, content)
        yield path
