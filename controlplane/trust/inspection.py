"""Looking at the keys and certificates of a data folder, whatever state they are in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from controlplane.trust.authority import CertificateAuthority
from controlplane.trust.layout import (
    AGENTS_ROOT,
    OPERATORS_ROOT,
    SERVER_AGENTS,
    SERVER_KEY,
    SERVER_OPERATORS,
    DataFolderError,
    Layout,
    load_authority,
    read,
)


class Purpose(Enum):
    """What a certificate of a data folder is for."""

    ROOT = "root"
    SERVER = "server"
    IDENTITY = "identity"


@dataclass(frozen=True, slots=True)
class Inspected:
    """One certificate; ``names`` are those that it is good for.

    ``damage`` says what is wrong with it or its key, and what to do; empty where both are
    sound. ``begin`` and ``end`` are its life, None where it cannot be read.
    """

    purpose: Purpose
    path: Path
    begin: datetime | None = None
    end: datetime | None = None
    names: tuple[str, ...] = ()
    damage: str = ""


def inspect(folder: Path) -> Iterator[Inspected]:
    """Yield every certificate that a data folder must have or has: roots, server's chains, identities."""
    layout = Layout(folder)
    roots = {}
    for name in (AGENTS_ROOT, OPERATORS_ROOT):
        path = layout.trust / f"{name}.pem"
        try:
            roots[name] = load_authority(layout.trust, name)
            yield _described(Purpose.ROOT, path, _certificate(path))
        except DataFolderError as error:
            yield Inspected(Purpose.ROOT, path, damage=str(error))
    for file, root in ((SERVER_AGENTS, AGENTS_ROOT), (SERVER_OPERATORS, OPERATORS_ROOT)):
        remedy = "put back trust/ from a backup, or let `fleetwright add-host NAME` make it again"
        yield _leaf(
            Purpose.SERVER, layout.trust / file, layout.trust / SERVER_KEY, roots.get(root), root, remedy
        )
    for entry in sorted(layout.identities.iterdir()) if layout.identities.is_dir() else ():
        if entry.is_dir() and not entry.name.startswith("."):
            yield _leaf(
                Purpose.IDENTITY,
                entry / "cert.pem",
                entry / "key.pem",
                roots.get(OPERATORS_ROOT),
                OPERATORS_ROOT,
                "remove its folder, and have it issued again",
            )


def _leaf(
    purpose: Purpose, path: Path, key: Path, root: CertificateAuthority | None, root_name: str, remedy: str
) -> Inspected:
    try:
        certificate = _certificate(path)
        found = _described(purpose, path, certificate)
        if _public_key(key) != certificate.public_key():
            return _damaged(found, f"{path}: its key is not {key}: {remedy}")
    except DataFolderError as error:
        return Inspected(purpose, path, damage=f"{error}; or {remedy}")
    if root is not None and not root.issued(certificate):
        return _damaged(found, f"{path}: {root_name} did not sign it: {remedy}")
    return found


def _damaged(found: Inspected, damage: str) -> Inspected:
    return Inspected(found.purpose, found.path, found.begin, found.end, found.names, damage)


def _described(purpose: Purpose, path: Path, certificate: x509.Certificate) -> Inspected:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return Inspected(purpose, path, begin, end, _names(path, certificate))


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(read(path))[0]
    except ValueError as error:
        raise DataFolderError(f"{path}: not a certificate in PEM: put it back from a backup") from error


def _public_key(path: Path) -> CertificatePublicKeyTypes:
    try:
        key = serialization.load_pem_private_key(read(path), password=None)
    except (ValueError, TypeError) as error:
        raise DataFolderError(f"{path}: not a private key in PEM: put it back from a backup") from error
    return key.public_key()  # type: ignore[return-value] # the wider type has keys that no certificate holds


def _names(path: Path, certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise DataFolderError(f"{path}: its extensions cannot be read: put it back from a backup") from error
    return tuple(str(name.value) for name in names)
