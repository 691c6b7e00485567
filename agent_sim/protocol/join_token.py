"""The join token: what an administrator hands out so that an agent may enrol."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field

from agent_sim.protocol.errors import EnrollmentError

_VERSION = "fwt1"
_DIGEST_BYTES = 32


@dataclass(frozen=True)
class JoinToken:
    """``fwt1.<id>.<secret>.<root digest>``, taken apart."""

    token_id: str
    text: str = field(repr=False)
    """The whole token; a secret."""
    root_digest: bytes
    """SHA-256 of the DER of the root that the server's chain must end in."""

    @classmethod
    def parse(cls, text: str) -> JoinToken:
        """Take a token apart. Raises EnrollmentError, without repeating the secret."""
        parts = text.strip().split(".")
        if len(parts) != 4 or parts[0] != _VERSION:
            raise EnrollmentError(
                f"join token: expected {_VERSION}.<id>.<secret>.<root digest>; copy the whole token again"
            )
        try:
            digest = base64.urlsafe_b64decode(parts[3] + "=" * (-len(parts[3]) % 4))
        except (binascii.Error, ValueError):
            digest = b""
        if len(digest) != _DIGEST_BYTES:
            raise EnrollmentError(
                "join token: its last part is not a SHA-256 in base64url; copy the whole token again"
            )
        return cls(parts[1], text.strip(), digest)
