"""The OpenPGP key that .debs are signed with: an armored file that only its owner can read."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from pysequoia import Cert, Profile, PySigner, Tsk
from pysequoia.packet import Packet, PacketPile, Tag

from controlplane.packaging.signing.states import SigningFailed

DEFAULT_VALIDITY: Final = timedelta(days=3 * 365)
MAX_KEY: Final = 1_000_000
"""Bytes of a key file; ours have about a thousand."""
_PUBLIC_KEY: Final = 6
"""The tag of a public key's packet (RFC 4880, 4.3)."""
_USER_ID: Final = re.compile(r"[^<>\x00-\x1f\x7f]{1,200} <[^<>@\s]{1,64}@[^<>@\s]{1,190}>")


@dataclass(frozen=True, slots=True)
class OriginKey:
    """A key that can sign. What may be shown of it is ``fingerprint`` and ``certificate``."""

    fingerprint: str
    """Of the primary key, lower-case hexadecimal: what people compare."""
    certificate: str
    """Armored, without secrets: what verifiers need."""
    debsig_keyring: bytes
    """The same signing key for debsig-verify, which knows no subkeys: a certificate of its own, binary."""
    expires: datetime | None
    signer: Any
    """pysequoia's handle on the secret of the signing subkey."""

    def __repr__(self) -> str:
        return f"OriginKey({self.fingerprint})"


def create_key(path: Path, user_id: str, *, validity: timedelta = DEFAULT_VALIDITY) -> OriginKey:
    """Make a key for ``user_id`` ("Name <name@example.org>") and store it at ``path``, mode 0600.

    The certificate is of RFC 4880, which gpg and debsig-verify of every Debian read. Raises
    ``SigningFailed``, also where a file is there already: a key is never overwritten.
    """
    if not _USER_ID.fullmatch(user_id):
        raise SigningFailed("USER_ID", f"{user_id[:64]!r} is not of the form 'Name <name@example.org>'")
    if validity < timedelta(days=1):
        raise SigningFailed(
            "VALIDITY", f"a key that is valid for {validity} is of no use; give a day or more"
        )
    made = Tsk.generate(user_id, profile=Profile.RFC4880, validity_seconds=int(validity.total_seconds()))
    _store(path, str(made).encode())
    return load_key(path)


def _store(path: Path, text: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            # A link fails where the name is taken, a rename would not.
            os.link(partial, path)
        finally:
            with suppress(FileNotFoundError):
                partial.unlink()
    except FileExistsError as error:
        raise SigningFailed(
            "KEY_EXISTS", f"{error.filename} is there already; keys are never overwritten"
        ) from error
    except OSError as error:
        raise SigningFailed("KEY_STORE", f"{path} cannot be written: {error.strerror}") from error


def load_key(path: Path, now: datetime | None = None) -> OriginKey:
    """Read a key; raises ``SigningFailed`` where others could read it too, it is none, or has expired."""
    text = _read(path)
    try:
        secret = Tsk.from_bytes(text)
        certificate = secret.extract_certificate()
        expires = certificate.expiration
        keyring = _as_primary(certificate, secret.signer())
        key = OriginKey(certificate.fingerprint, str(certificate), keyring, expires, secret.signer())
    except Exception as error:
        raise SigningFailed("KEY_UNUSABLE", f"{path} holds no OpenPGP key that can sign: {error}") from error
    if expires is not None and expires <= (now or datetime.now(UTC)):
        raise SigningFailed(
            "KEY_EXPIRED", f"the key in {path} expired at {expires.isoformat()}; make a new one"
        )
    if certificate.is_revoked:
        raise SigningFailed("KEY_REVOKED", f"the key in {path} is revoked; make a new one")
    return key


def _as_primary(certificate: Cert, signer: PySigner) -> bytes:
    """Return the signing subkey as a certificate whose primary key it is.

    debsig-verify compares the key of a signature with primary keys alone. A key has the same fingerprint in
    either place (RFC 4880, 12.2); only the tag of its packet is another.
    """
    subkey = _signing_subkey(certificate)
    packet = bytes([0xC0 | _PUBLIC_KEY, len(subkey.body)]) + subkey.body
    bare = Cert.from_packets(list(PacketPile.from_bytes(packet)))
    named = bare.add_user_id(str(certificate.user_ids[0]), signer)
    if certificate.expiration is not None:
        named = named.set_expiration(certificate.expiration, signer)
    return bytes(named)


def _signing_subkey(certificate: Cert) -> Packet:
    packets: list[Packet] = list(PacketPile.from_bytes(bytes(certificate)))
    for key, binding in pairwise(packets):
        flags = binding.key_flags
        # A length of one byte holds up to 191; an Ed25519 key has 51 bytes.
        if key.tag == Tag.PublicSubkey and flags is not None and flags.signing and len(key.body) < 192:
            return key
    raise ValueError("has no Ed25519 subkey that signs")


def _read(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_KEY:
                raise SigningFailed("KEY_UNUSABLE", f"{path} is no file of a key")
            if status.st_mode & 0o077:
                raise SigningFailed("KEY_EXPOSED", f"{path} can be read by others; run: chmod 600 {path}")
            return file.read(MAX_KEY)
    except OSError as error:
        raise SigningFailed("KEY_MISSING", f"{path} cannot be read: {error.strerror}") from error


def certificate_of(text: str) -> Cert:
    """Read an armored certificate without secrets; raises ``SigningFailed``."""
    try:
        certificate = Cert.from_bytes(text.encode())
    except Exception as error:
        raise SigningFailed("CERTIFICATE", f"is no OpenPGP certificate: {error}") from error
    return certificate
