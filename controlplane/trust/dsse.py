"""Signing in-toto statements in DSSE envelopes.

Signing is a function of the payload and the keys: the same twice gives the same bytes. Whoever signs in a
durable workflow stores the first envelope that it committed and takes that one again on a retry, because a
payload that was built again may differ in its times. Reading and verifying is the client library's,
``fleetwright.verify.envelopes``; ``verify`` here is the same by the name of this side.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence

from fleetwright.verify.documents import canonical
from fleetwright.verify.envelopes import (
    LARGEST_ENVELOPE,
    MOST_SIGNATURES,
    PAYLOAD_TYPE,
    Envelope,
    parse_envelope,
)
from fleetwright.verify.envelopes import verify as verify_parsed
from fleetwright.verify.keys import PublicKey
from fleetwright.verify.statements import parse_statement
from securesystemslib.dsse import Envelope as LibraryEnvelope

from controlplane.trust.keys import SigningKey


class SigningRefused(Exception):
    """What was asked to be signed must not be; the text says why. A defect of the caller."""


def sign(payload: bytes, keys: Sequence[SigningKey]) -> bytes:
    """Return a statement's envelope with the signature of each key: one line of JSON without its end.

    Raises ``Malformed`` where the payload is no statement, and ``SigningRefused`` for no key, too many, one
    key twice, or an envelope that no verifier would read.
    """
    parse_statement(payload)
    if not 1 <= len(keys) <= MOST_SIGNATURES:
        raise SigningRefused(f"{len(keys)} keys to sign with: 1 to {MOST_SIGNATURES} can sign an envelope")
    if len({key.key_id for key in keys}) != len(keys):
        raise SigningRefused("one key was given twice to sign an envelope: its signature counts once")
    signed = LibraryEnvelope(payload, PAYLOAD_TYPE, {}).pae()
    envelope = canonical(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [
                {"keyid": key.key_id, "sig": base64.b64encode(key.sign(signed)).decode()} for key in keys
            ],
        }
    )
    if len(envelope) > LARGEST_ENVELOPE:
        raise SigningRefused(
            f"an envelope of {len(envelope)} bytes: verifiers read {LARGEST_ENVELOPE} at most"
        )
    return envelope


def verify(envelope: bytes, keys: Iterable[PublicKey], threshold: int = 1) -> Envelope:
    """Return what an envelope holds, where at least ``threshold`` of ``keys`` signed it.

    Raises the ``VerificationError`` of ``fleetwright.verify.envelopes``.
    """
    found = parse_envelope(envelope)
    verify_parsed(found, keys, threshold)
    return found
