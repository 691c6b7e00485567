"""The folder of a new identity, made where its owner is: the key never leaves it.

The key is on disk before anyone is asked to sign it, and the folder gets its name when it is whole: an
interrupted run leaves nothing that looks like an identity, and takes the place of none.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from controlplane.trust.authority import new_key, private_pem
from controlplane.trust.files import make_folder, move_folder, write_file
from controlplane.trust.layout import DataFolderError


class UnsignedIdentity:
    """A key in a folder that is to become ``target``; ``request`` (PKCS #10, DER) asks for its certificate.

    Use it as a context manager: without ``finish``, what was written is removed again.
    """

    def __init__(self, target: Path, common_name: str) -> None:
        """Make the folder, open to its owner alone, and the key. Raises ``DataFolderError``."""
        if target.exists():  # so have . and /, which have no name beside which to write
            raise DataFolderError(
                f"{target}: exists already, and nothing is overwritten: choose another folder"
            )
        self._target = target
        self._fresh = target.with_name(f".{target.name}.new")
        key = new_key()
        self.request = _request(key, common_name)
        try:
            shutil.rmtree(self._fresh, ignore_errors=True)
            make_folder(self._fresh)
            write_file(self._fresh / "key.pem", private_pem(key))
        except OSError as error:
            raise _unwritable(target, error) from error

    def __enter__(self) -> UnsignedIdentity:
        return self

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self._fresh, ignore_errors=True)

    def finish(self, certificate_pem: bytes, root_pem: bytes) -> Path:
        """Add the certificate and the server's root, and give the folder its name, which is returned.

        Raises ``DataFolderError``, also where the name was taken meanwhile.
        """
        try:
            write_file(self._fresh / "cert.pem", certificate_pem)
            write_file(self._fresh / "ca.pem", root_pem)
            move_folder(self._fresh, self._target)
        except OSError as error:
            raise _unwritable(self._target, error) from error
        return self._target


def _request(key: ec.EllipticCurvePrivateKey, common_name: str) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)


def _unwritable(target: Path, error: OSError) -> DataFolderError:
    return DataFolderError(
        f"{error.filename or target}: {error.strerror}: choose a folder that this user can write"
    )
