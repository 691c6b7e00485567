"""Public keys, and the document that says who may attest what.

The document is a target of the repository, ``trust/attestation-keys.json``, released by the role ``targets``
whose keys are offline: whoever holds an online key can neither add an attester nor give one another purpose.

    {"_type": "attestation-keys", "version": 1,
     "keys": [{"keyid": "...", "keytype": "ed25519", "scheme": "ed25519", "public": "<hex>",
               "purposes": ["provenance"], "expires": "2031-01-31T12:00:00Z"}]}
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.signer import SSlibKey

from fleetwright.verify.documents import JsonObject, canonical, instant_text, parse_object
from fleetwright.verify.errors import Malformed

KEYS_TARGET: Final = "trust/attestation-keys.json"
"""Where the document stands among the repository's targets."""

LARGEST_DOCUMENT: Final = 256 * 1024
MOST_KEYS: Final = 256
MOST_PURPOSES: Final = 32
_TYPE = "attestation-keys"


class Purpose(Enum):
    """What a key may attest."""

    PROVENANCE = "provenance"
    SBOM = "sbom"
    SCAN = "scan"
    VERDICT = "verdict"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 key that verifies."""

    key_id: str
    """SHA-256 of the key's canonical description, as securesystemslib and TUF name keys."""
    public: str
    """The 32 bytes, in hexadecimal."""

    @classmethod
    def of(cls, public: str) -> PublicKey:
        """Name a key by its 64 hexadecimal digits. Raises ``Malformed`` for what is no key."""
        try:
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
        except ValueError:
            raise Malformed(
                f"public key {public[:80]!r}: 64 hexadecimal digits of an Ed25519 key are expected"
            ) from None
        return cls(SSlibKey.from_crypto(key).keyid, public)

    @property
    def library(self) -> SSlibKey:
        """The same key in securesystemslib's form."""
        return SSlibKey(self.key_id, "ed25519", "ed25519", {"public": self.public})


@dataclass(frozen=True, slots=True)
class Attester:
    """A key, what it may attest, and until when."""

    key: PublicKey
    purposes: frozenset[Purpose]
    expires: datetime


@dataclass(frozen=True, slots=True)
class AttestationKeys:
    """Who may attest what."""

    version: int
    attesters: tuple[Attester, ...]

    def of_purpose(self, purpose: Purpose, now: datetime) -> tuple[PublicKey, ...]:
        """Return the keys that may attest ``purpose`` at ``now``."""
        return tuple(
            attester.key
            for attester in self.attesters
            if purpose in attester.purposes and now < attester.expires
        )

    def purposes_of(self, key_id: str) -> frozenset[Purpose]:
        """Return what a key may attest at any time; nothing for a key that is not listed."""
        found = (attester.purposes for attester in self.attesters if attester.key.key_id == key_id)
        return next(found, frozenset())

    def to_bytes(self) -> bytes:
        """Return the document, the same bytes for the same keys."""
        keys = [
            {
                "keyid": attester.key.key_id,
                "keytype": "ed25519",
                "scheme": "ed25519",
                "public": attester.key.public,
                "purposes": sorted(purpose.value for purpose in attester.purposes),
                "expires": instant_text(attester.expires),
            }
            for attester in sorted(self.attesters, key=lambda attester: attester.key.key_id)
        ]
        return canonical({"_type": _TYPE, "version": self.version, "keys": keys})


def parse_keys(data: bytes) -> AttestationKeys:
    """Read the document. Raises ``Malformed``."""
    document = parse_object(data, KEYS_TARGET, LARGEST_DOCUMENT)
    if document.text("_type") != _TYPE:
        raise document.wrong("_type", f"{_TYPE!r} is expected")
    attesters = tuple(_attester(item) for item in document.children("keys", MOST_KEYS))
    if not attesters:
        raise document.wrong("keys", "empty: nobody could attest anything")
    if len({attester.key.key_id for attester in attesters}) != len(attesters):
        raise document.wrong("keys", "one key stands there twice")
    return AttestationKeys(document.integer("version", lowest=1), attesters)


def _attester(item: JsonObject) -> Attester:
    for name in ("keytype", "scheme"):
        if item.text(name, longest=64) != "ed25519":
            raise item.wrong(name, "'ed25519' is expected; no other kind of key is taken")
    key = PublicKey.of(item.hexadecimal("public"))
    if item.text("keyid", longest=256) != key.key_id:
        raise item.wrong("keyid", f"{key.key_id} is expected for this key")
    return Attester(key, _purposes(item), item.instant("expires"))


def _purposes(item: JsonObject) -> frozenset[Purpose]:
    # A later version may know purposes that this one does not; keys for these alone are of no use here.
    known = {purpose.value: purpose for purpose in Purpose}
    return frozenset(known[name] for name in item.texts("purposes", MOST_PURPOSES) if name in known)
