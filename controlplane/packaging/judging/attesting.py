"""Signing what is found and decided, and checking what the decision stands on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from fleetwright.verify.errors import VerificationError
from fleetwright.verify.keys import Purpose
from fleetwright.verify.statements import parse_statement

from controlplane.packaging.judging.subjects import JudgingFailed
from controlplane.packaging.store.decisions import Attested
from controlplane.trust import dsse
from controlplane.trust.keys import SigningKey


def purpose_of(kind: str) -> Purpose:
    """Return what a key must be for to attest a kind ("sbom.spdx"). Raises ``JudgingFailed``."""
    try:
        return Purpose(kind.partition(".")[0])
    except ValueError:
        raise JudgingFailed("EVIDENCE_BROKEN", f"{kind[:64]!r} is no kind of attestation") from None


class Attesting:
    """The keys of this server that attest, each for its purpose; none where trust was never set up."""

    def __init__(self, attesters: Mapping[Purpose, SigningKey]) -> None:
        self._attesters = attesters

    def sign(self, kind: str, payload: bytes) -> Attested:
        """Return the envelope of a statement. Raises ``JudgingFailed``."""
        try:
            envelope = dsse.sign(payload, [self._key(kind)])
        except (dsse.SigningRefused, VerificationError) as error:
            raise JudgingFailed("ATTESTATION", f"{kind}: cannot be attested: {error}") from None
        return Attested(kind, hashlib.sha256(envelope).hexdigest(), envelope)

    def checked(self, kind: str, envelope: bytes, package: str) -> Attested:
        """Return an envelope as evidence: signed by our key for it, and about these bytes.

        Raises ``JudgingFailed``: a verdict must not vouch for what another one would refuse.
        """
        try:
            found = dsse.verify(envelope, [self._key(kind).public])
            statement = parse_statement(found.payload)
        except VerificationError as error:
            raise JudgingFailed("EVIDENCE_BROKEN", f"{kind}: {error}") from None
        if statement.purpose is not purpose_of(kind) or not statement.is_about(package):
            raise JudgingFailed(
                "EVIDENCE_BROKEN", f"{kind}: it is not such a statement about {package}; build it again"
            )
        return Attested(kind, found.sha256, envelope)

    def _key(self, kind: str) -> SigningKey:
        key = self._attesters.get(purpose_of(kind))
        if key is None:
            raise JudgingFailed(
                "TRUST_NOT_SET_UP",
                f"{kind}: this server has no key that may attest it; run `fleetwright trust init`",
            )
        return key
