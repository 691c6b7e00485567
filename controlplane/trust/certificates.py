"""Reading what certificates on disk say of themselves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509

from controlplane.trust.layout import DataFolderError, read


@dataclass(frozen=True, slots=True)
class Validity:
    """When a certificate holds: from ``begin`` until before ``end``."""

    begin: datetime
    end: datetime


def validity(path: Path | str) -> Validity:
    """Return when the first certificate of a PEM file holds. Raises ``DataFolderError``."""
    path = Path(path)
    try:
        certificate = x509.load_pem_x509_certificate(read(path))
    except ValueError as error:
        raise DataFolderError(f"{path}: not a certificate in PEM: have the identity issued again") from error
    return Validity(certificate.not_valid_before_utc, certificate.not_valid_after_utc)
