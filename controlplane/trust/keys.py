"""Ed25519 keys that sign: making them, keeping them in files, and never showing them.

A key's file is PKCS #8 in PEM, mode 0600 in a folder of mode 0700; one that others may read is refused. A key
that is carried away from the server, an offline key, can be encrypted with a passphrase (PBES2 with AES-256,
what OpenSSL reads too). Nothing of a private key stands in a ``repr`` or in an error.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fleetwright.verify.keys import PublicKey
from securesystemslib.signer import CryptoSigner

from controlplane.trust.files import FILE_MODE, make_folder, write_file
from controlplane.trust.layout import DataFolderError

SHORTEST_PASSPHRASE: Final = 12
"""Characters. What protects an offline key against whoever finds its file is only how long guessing takes."""

SUFFIX: Final = ".pem"
_LARGEST: Final = 64 * 1024
_FOREIGN_BITS: Final = 0o077


class KeyFileError(DataFolderError):
    """A key's file cannot be used; the text names it and the remedy, and nothing of the key."""


class SigningKey:
    """A private key. What it signs depends on nothing but the bytes: Ed25519 has no randomness (RFC 8032)."""

    __slots__ = ("_private", "public")

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        raw = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.public = PublicKey.of(raw.hex())
        """The key that verifies."""

    @classmethod
    def generate(cls) -> SigningKey:
        """Make a new key."""
        return cls(Ed25519PrivateKey.generate())

    @property
    def key_id(self) -> str:
        """Its name wherever it signed."""
        return self.public.key_id

    @property
    def signer(self) -> CryptoSigner:
        """The same key in securesystemslib's form, for TUF."""
        return CryptoSigner(self._private, self.public.library)

    def sign(self, data: bytes) -> bytes:
        """Return the 64 bytes of the signature over ``data``."""
        return self._private.sign(data)

    def __repr__(self) -> str:
        return f"SigningKey({self.key_id[:16]})"

    def __reduce__(self) -> str:
        raise TypeError("a private key goes nowhere but into its file")

    def write(self, path: Path, passphrase: str | None = None) -> None:
        """Write the key to a file that nobody has yet, in a private folder.

        Raises ``KeyFileError`` where there is a file already, where it cannot be written, and for a
        passphrase that is too short.
        """
        if path.exists():
            raise KeyFileError(
                f"{path}: exists already, and a key in it would be lost: choose another folder"
            )
        content = self._private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, _encryption(path, passphrase)
        )
        try:
            make_folder(path.parent)
            write_file(path, content)
        except OSError as error:
            raise KeyFileError(f"{path}: {error.strerror}: name a folder that this user may write") from None


def load_key(path: Path, passphrase: str | None = None) -> SigningKey:
    """Read a key's file. Raises ``KeyFileError``."""
    content = _read(path)
    secret = passphrase.encode() if passphrase is not None else None
    try:
        private = serialization.load_pem_private_key(content, secret)
    except TypeError:
        if passphrase is None:
            raise KeyFileError(f"{path}: encrypted, and no passphrase was given") from None
        raise KeyFileError(f"{path}: not encrypted, and a passphrase was given: give none") from None
    except (ValueError, UnsupportedAlgorithm):
        reason = "the passphrase is another one" if passphrase is not None else "it is damaged"
        raise KeyFileError(f"{path}: no key can be read from it: {reason}, or the file is no key") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise KeyFileError(f"{path}: not an Ed25519 key: put back the file that belongs there")
    return SigningKey(private)


def _encryption(path: Path, passphrase: str | None) -> serialization.KeySerializationEncryption:
    if passphrase is None:
        return serialization.NoEncryption()
    check_passphrase(passphrase, str(path))
    return serialization.BestAvailableEncryption(passphrase.encode())


def check_passphrase(passphrase: str, where: str) -> None:
    """Raise ``KeyFileError`` for a passphrase that protects nothing."""
    if len(passphrase) < SHORTEST_PASSPHRASE:
        raise KeyFileError(
            f"{where}: the passphrase is shorter than {SHORTEST_PASSPHRASE} characters: take a longer one"
        )


def _read(path: Path) -> bytes:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST:
            raise KeyFileError(f"{path}: no key's file: put back the file that belongs there")
        if stat.S_IMODE(found.st_mode) & _FOREIGN_BITS:
            raise KeyFileError(
                f"{path}: others than its owner may use it (mode {stat.S_IMODE(found.st_mode):04o}): "
                f"chmod {FILE_MODE:04o} it, and think of it as known to them"
            )
        return path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}: put the key there, or name its folder") from None
