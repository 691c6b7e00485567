"""The room's own shapes of tokens, certificates and identities, between its store, service and handler.

Instants are whole microseconds since the Unix epoch, UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controlplane.callers import IdentityKind
from controlplane.identity.rules import (
    CertificateState,
    IdentityState,
    Standing,
    TokenState,
    identity_state,
    token_state,
)


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """An enrolment token. Its secret is not kept, only ``secret_digest``, its SHA-256."""

    token_id: str
    secret_digest: bytes = field(repr=False)
    description: str
    labels: Mapping[str, str]
    max_uses: int
    use_count: int
    allow_reenrollment: bool
    creator: str
    create_time: int
    expire_time: int
    revoke_time: int | None

    def state(self, now: int) -> TokenState:
        """Return whether it lets agents in at ``now``."""
        return token_state(
            expire_time=self.expire_time,
            revoke_time=self.revoke_time,
            use_count=self.use_count,
            max_uses=self.max_uses,
            now=now,
        )


@dataclass(frozen=True, slots=True)
class CertificateRecord:
    """A certificate of an agent. ``key_digest`` is the SHA-256 of its SubjectPublicKeyInfo in DER."""

    serial: str
    agent_id: str
    key_digest: bytes
    state: CertificateState
    not_before: int
    not_after: int
    issue_time: int
    der: bytes

    @property
    def standing(self) -> Standing:
        """What decides whether it lets its agent in."""
        return Standing(self.agent_id, self.state, self.not_before, self.not_after)


@dataclass(frozen=True, slots=True)
class TokenPage:
    """A page of tokens, newest first; ``next_page_token`` is empty after the last one."""

    tokens: list[TokenRecord]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that was made, and the only copy of the text with its secret."""

    token: TokenRecord
    join_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate as its owner gets it: chain and bundle in DER, and when to renew."""

    chain: tuple[bytes, ...]
    trust_bundle: tuple[bytes, ...]
    not_before: int
    not_after: int
    renew_after: int


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What an agent gets at enrolment."""

    spiffe_id: str
    certificate: Issued
    agent_addresses: tuple[str, ...]
    trusted_root: bytes = b""
    """By which it judges packages; empty for none."""


@dataclass(frozen=True, slots=True)
class IdentityRecord:
    """A certificate of an operator or integrator; ``creator`` is empty for one issued offline."""

    serial: str
    kind: IdentityKind
    name: str
    creator: str
    create_time: int
    expire_time: int
    revoke_time: int | None = None

    def state(self, now: int) -> IdentityState:
        """Return whether it may call at ``now``."""
        return identity_state(expire_time=self.expire_time, revoke_time=self.revoke_time, now=now)


@dataclass(frozen=True, slots=True)
class IdentityPage:
    """A page of identities, newest first; ``next_page_token`` is empty after the last one."""

    identities: list[IdentityRecord]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class NewIdentity:
    """An identity that was issued: its certificate, and the root of the admin port, both in PEM."""

    identity: IdentityRecord
    certificate_pem: bytes
    root_pem: bytes


@dataclass(frozen=True, slots=True)
class Revocation:
    """Certificates that ended before their time: live streams of their agent must be closed."""

    agent_id: str
    serials: tuple[str, ...]
    reason: str
