"""Signing what a stage attests, and looking at the signature with other code before anybody gets it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fleetwright.verify.errors import Malformed
from fleetwright.verify.keys import Purpose

from controlplane.packaging.stages.stage import Job, StageFailed
from controlplane.packaging.stages.workshop import Workshop
from controlplane.trust import dsse, second_look
from controlplane.trust.keys import SigningKey

KeyFor = Callable[[Purpose], SigningKey | None]
"""Finds the key that attests something; None where this server has none."""


@dataclass(frozen=True, slots=True)
class Attested:
    """An envelope that is in the store, and the report of its signature as the contract has it."""

    sha256: str
    """Of the envelope: one line of JSON without its end."""
    report: dict[str, Any]


def key_of(key_for: KeyFor, purpose: Purpose) -> SigningKey:
    """Return the key that attests something. Raises ``StageFailed`` (TRUST_NOT_SET_UP)."""
    key = key_for(purpose)
    if key is None:
        raise StageFailed(
            "TRUST_NOT_SET_UP",
            f"this server has no key that attests {purpose.value}: run `fleetwright trust init`, and give it "
            "the online folder",
        )
    return key


async def attest(
    workshop: Workshop, job: Job, key_for: KeyFor, purpose: Purpose, write: Callable[[], bytes]
) -> Attested:
    """Sign the statement that ``write`` returns, which may take its time, and store the envelope.

    The same statement and key give the same envelope. Raises ``StageFailed``.
    """
    key = key_of(key_for, purpose)
    envelope = await asyncio.to_thread(_signed, write, key, purpose)
    kept = await workshop.keep_bytes(envelope, job.folder / f"{purpose.value}.envelope")
    job.say("info", f"{purpose.value} attested by {key.key_id[:16]}: {kept.sha256}")
    report = {
        "kind": "dsse",
        "key_id": key.key_id,
        "state": "VERIFIED",
        "verified_by": second_look.NAME,
        "detail": f"{purpose.value}, an in-toto statement",
    }
    return Attested(kept.sha256, report)


def _signed(write: Callable[[], bytes], key: SigningKey, purpose: Purpose) -> bytes:
    try:
        envelope = dsse.sign(write(), [key])
    except Malformed as error:
        raise StageFailed("NOT_ATTESTABLE", f"{purpose.value}: no verifier would take it: {error}") from None
    except dsse.SigningRefused as error:
        raise StageFailed("NOT_ATTESTABLE", f"{purpose.value}: {error}") from None
    if not second_look.confirms(envelope, key.public):
        raise StageFailed(
            "SIGNATURE_REFUSED",
            f"{purpose.value}: the signature of {key.key_id[:16]} is not good by {second_look.NAME}; "
            "nothing that this server signs can be trusted before that is found out",
        )
    return envelope
