"""DSSE envelopes (Dead Simple Signing Envelope, version 1): reading them, and whose signatures on them are
good.

A signature is over the payload's type and bytes (DSSE's pre-authentication encoding), so that neither can be
exchanged. Signatures of keys that one does not know are passed over, as DSSE demands; they count for nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from securesystemslib.dsse import Envelope as LibraryEnvelope
from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Signature

from fleetwright.verify.documents import JsonObject, parse_object
from fleetwright.verify.errors import BadSignature, Malformed, UnknownKey
from fleetwright.verify.keys import PublicKey

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"

LARGEST_ENVELOPE: Final = 48 * 1024 * 1024
"""Bytes; an SBOM of a hundred thousand components fits, and reading one costs a few times as much memory."""

MOST_SIGNATURES: Final = 16
"""More than any threshold asks for; each one costs a verification."""

_SIGNATURE_BYTES: Final = 64
"""Of Ed25519 (RFC 8032)."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """An envelope that could be read. Nothing in it is believed yet."""

    payload: bytes
    signatures: Mapping[str, bytes]
    """By key id."""
    sha256: str
    """Of the envelope's own bytes, by which a verdict names the attestations that it was made from."""


def parse_envelope(data: bytes, where: str = "envelope") -> Envelope:
    """Read one envelope with an in-toto payload. ``where`` names it in errors.

    Raises ``Malformed``.
    """
    document = parse_object(data, where, LARGEST_ENVELOPE)
    kind = document.text("payloadType", longest=256)
    if kind != PAYLOAD_TYPE:
        raise document.wrong("payloadType", f"{kind!r}, where {PAYLOAD_TYPE!r} is expected")
    payload = _base64(document, "payload", LARGEST_ENVELOPE)
    signatures: dict[str, bytes] = {}
    for item in document.children("signatures", MOST_SIGNATURES):
        key_id = item.text("keyid", longest=256)
        if key_id in signatures:
            raise item.wrong("keyid", f"{key_id!r} stands there twice")
        signatures[key_id] = _base64(item, "sig", 4096)
    return Envelope(payload, signatures, hashlib.sha256(data).hexdigest())


def good_signers(envelope: Envelope, keys: Iterable[PublicKey]) -> tuple[str, ...]:
    """Return the ids of those of ``keys`` whose signature on the envelope is good."""
    signatures = {
        key_id: Signature(key_id, signature.hex())
        for key_id, signature in envelope.signatures.items()
        if len(signature) == _SIGNATURE_BYTES
    }
    signed = LibraryEnvelope(envelope.payload, PAYLOAD_TYPE, signatures).pae()
    return tuple(
        key.key_id
        for key in keys
        if key.key_id in signatures and _is_good(key, signatures[key.key_id], signed)
    )


def verify(envelope: Envelope, keys: Iterable[PublicKey], threshold: int = 1) -> tuple[str, ...]:
    """Return who signed, where at least ``threshold`` of ``keys`` did.

    Raises ``UnknownKey`` where none of the signatures is of these keys, and ``BadSignature`` where too few
    are good.
    """
    allowed = {key.key_id: key for key in keys}
    if not allowed.keys() & envelope.signatures.keys():
        named = ", ".join(key_id[:16] for key_id in envelope.signatures) or "nobody"
        raise UnknownKey(
            f"signed by {named}, and by none of the keys that may sign this: get it from its source again"
        )
    signers = good_signers(envelope, allowed.values())
    if len(signers) < max(threshold, 1):
        raise BadSignature(
            f"{len(signers)} good signatures, where {max(threshold, 1)} are needed: the content was changed "
            "after it "
            "was signed, or a signature is missing: get it from its source again"
        )
    return signers


def _is_good(key: PublicKey, signature: Signature, signed: bytes) -> bool:
    try:
        key.library.verify_signature(signature, signed)
    except UnverifiedSignatureError:
        return False
    return True


def _base64(document: JsonObject, name: str, longest: int) -> bytes:
    text = document.text(name, longest=longest)
    try:
        # DSSE lets a producer choose either alphabet.
        return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        raise Malformed(f"{document.where}: {name} is not base64: get the envelope again") from None
