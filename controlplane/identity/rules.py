"""What decides who may speak. Pure: no I/O, and the clock is passed in.

Invariants, property-tested in ``tests/unit/identity``:

* A certificate moves only NEXT to CURRENT to SUPERSEDED, or from any of them to
  REVOKED; SUPERSEDED and REVOKED let no one in, ever.
* A token lets in at most ``max_uses`` agents, none after it ended or was revoked.
* Who does not know a token's secret learns nothing of the token, not even that it exists.
* A join token has one spelling.
* What was revoked of administrators' identities stays so, and who revokes can still call.

Instants are whole microseconds since the Unix epoch.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass
from enum import Enum, IntEnum

TOKEN_VERSION = "fwt1"  # noqa: S105 - the public first part of every join token
TOKEN_ID_LENGTH = 16
TOKEN_ID_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"  # noqa: S105 - an alphabet
SECRET_BYTES = 32

_TOKEN_ID = re.compile(r"[a-z0-9]{16}")

# --- tokens


class TokenState(IntEnum):
    """Whether a token lets agents in; the contract's ``EnrollmentTokenState``, with its numbers."""

    ACTIVE = 1
    EXPIRED = 2
    EXHAUSTED = 3
    REVOKED = 4


def token_state(
    *, expire_time: int, revoke_time: int | None, use_count: int, max_uses: int, now: int
) -> TokenState:
    """Return a token's state: what an administrator did comes before what time and use did."""
    if revoke_time is not None:
        return TokenState.REVOKED
    if now >= expire_time:
        return TokenState.EXPIRED
    return TokenState.EXHAUSTED if use_count >= max_uses else TokenState.ACTIVE


@dataclass(frozen=True, slots=True)
class JoinToken:
    """The parts of ``fwt1.<id>.<secret>.<root digest>``. The server ignores the last: it is the agent's."""

    token_id: str
    secret: bytes
    root_digest: str

    def __repr__(self) -> str:
        """Name the token and never its secret."""
        return f"JoinToken({self.token_id!r})"

    def write(self) -> str:
        """Return the text to hand to agents."""
        secret = base64.urlsafe_b64encode(self.secret).rstrip(b"=").decode()
        return f"{TOKEN_VERSION}.{self.token_id}.{secret}.{self.root_digest}"


def read_join_token(text: str) -> JoinToken | None:
    """Return the parts of a join token, None where ``text`` is not one."""
    parts = text.split(".")
    if len(parts) != 4 or parts[0] != TOKEN_VERSION or not _TOKEN_ID.fullmatch(parts[1]):
        return None
    try:
        secret = base64.b64decode(parts[2].encode("ascii") + b"=", altchars=b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error):
        return None
    token = JoinToken(parts[1], secret, parts[3])
    return token if len(secret) == SECRET_BYTES and token.write() == text else None


def secret_digest(secret: bytes) -> bytes:
    """Return what is stored of a token's secret. It has 256 random bits, so a fast digest is enough."""
    return hashlib.sha256(secret).digest()


_NO_SECRET = bytes(SECRET_BYTES)


def secret_matches(secret: bytes, stored_digest: bytes | None) -> bool:
    """Return whether ``secret`` is the one of the digest, in the same time for every answer.

    None stands for a token that does not exist, and never matches.
    """
    equal = hmac.compare_digest(secret_digest(secret), stored_digest or _NO_SECRET)
    return equal and stored_digest is not None


# --- certificates


class CertificateState(IntEnum):
    """Where an agent's certificate stands."""

    NEXT = 1
    """Issued by a renewal and not used yet."""
    CURRENT = 2
    """The one that the agent shows."""
    SUPERSEDED = 3
    """A later one was used, or asked for before this one was."""
    REVOKED = 4
    """Ended by the deletion or the re-enrolment of its agent."""


LIVE_STATES = (CertificateState.NEXT, CertificateState.CURRENT)

TRANSITIONS: dict[CertificateState, frozenset[CertificateState]] = {
    CertificateState.NEXT: frozenset(
        {CertificateState.CURRENT, CertificateState.SUPERSEDED, CertificateState.REVOKED}
    ),
    CertificateState.CURRENT: frozenset({CertificateState.SUPERSEDED, CertificateState.REVOKED}),
    CertificateState.SUPERSEDED: frozenset({CertificateState.REVOKED}),
    CertificateState.REVOKED: frozenset(),
}


class Admission(Enum):
    """What a certificate that is shown at the opening of a stream means."""

    ACCEPT = "accept"
    PROMOTE = "promote"
    """Accept it, make it CURRENT, and the former CURRENT one SUPERSEDED."""
    REVOKED = "revoked"
    """Refuse: it is revoked, replaced, another agent's, or never issued here."""
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Standing:
    """What the database says of a certificate."""

    agent_id: str
    state: CertificateState
    not_before: int
    not_after: int


def admission(shown_by: str, standing: Standing | None, now: int) -> Admission:
    """Decide on a certificate that the agent ``shown_by`` shows; None is one that was never issued here.

    Its last second is still within its life (RFC 5280, section 4.1.2.5).
    """
    if standing is None or standing.agent_id != shown_by or standing.state not in LIVE_STATES:
        return Admission.REVOKED
    if not standing.not_before <= now <= standing.not_after:
        return Admission.EXPIRED
    return Admission.PROMOTE if standing.state is CertificateState.NEXT else Admission.ACCEPT


def may_be_adopted(not_before: int, *, restore_time: int, until: int, now: int) -> bool:
    """Decide on a certificate of our root that is unknown, after a restore whose operator allows that.

    What was issued before the backup is known. So an unknown one is of the time between
    backup and restore, or signed with a stolen key: what begins after the restore is.
    """
    return now <= until and not_before <= restore_time


def renew_after(issue_time: int, not_after: int) -> int:
    """Return when to ask for the next certificate: half way from the issue to the end.

    The backdated ``not_before`` does not count: a life of two minutes, backdated by five,
    would else be past its half when it is issued.
    """
    return issue_time + max(0, not_after - issue_time) // 2


# --- operators and integrators


class IdentityState(IntEnum):
    """Whether an administrator's identity may call; the contract's ``IdentityState``, with its numbers."""

    ACTIVE = 1
    EXPIRED = 2
    REVOKED = 3


def identity_state(*, expire_time: int, revoke_time: int | None, now: int) -> IdentityState:
    """Return an identity's state; as of an agent's certificate, its last second is within its life."""
    if revoke_time is not None:
        return IdentityState.REVOKED
    return IdentityState.EXPIRED if now > expire_time else IdentityState.ACTIVE


def locks_everyone_out(serial: str, caller_serial: str, other_operators: int) -> bool:
    """Return whether revoking ``serial`` leaves no operator that may call.

    Only an operator revokes, so that it takes itself, with no other one that is active.
    """
    return serial == caller_serial and other_operators == 0
