"""What is called in an isolated process to look at a signature; see ``isolation/functions.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from controlplane.packaging.signing.verifying import verify_deb


def verify(certificate: str, debsig_keyring: str) -> dict[str, Any]:
    """Return what other implementations say of the signature in ``in/package.deb``.

    ``debsig_keyring`` is ``OriginKey.debsig_keyring`` in hexadecimal.
    """
    return verify_deb(Path("in/package.deb"), certificate, bytes.fromhex(debsig_keyring)).to_json()
