"""An agent's identity: a key that never leaves the host, its certificate, and what it trusts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fleetwright.v1 import enrollment_service_pb2

from agent_sim.protocol.errors import IdentityError

AGENT_ID_PATTERN = re.compile(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
"""What an agent id looks like, as EnrollRequest.agent_id says."""

PrivateKey = ec.EllipticCurvePrivateKey
"""Kind of an agent's key: ECDSA on P-256, which costs a server the least per handshake."""


@dataclass(frozen=True)
class AgentIdentity:
    """Who an agent is, and by what it knows its server. Immutable: renewal makes another one."""

    agent_id: str
    spiffe_id: str
    """``spiffe://<trust domain>/agent/<agent id>``."""
    key_pem: bytes = field(repr=False)
    """Private key, PKCS #8 PEM. Never sent, never logged."""
    chain_pem: bytes = field(repr=False)
    """Certificate chain, the agent's own certificate first."""
    trust_bundle_pem: bytes = field(repr=False)
    """Roots by which the server is verified; no other root is trusted."""
    not_before: datetime
    not_after: datetime
    """Last second of the certificate; a session ends with it."""
    renew_after: datetime
    """When to ask for the next certificate."""
    agent_addresses: tuple[str, ...]
    """Where AgentService is reached, ``host:port``, in order of preference."""

    @property
    def serial_number(self) -> int:
        """Serial number of the agent's own certificate."""
        return x509.load_pem_x509_certificate(self.chain_pem).serial_number


class IdentityStore(Protocol):
    """Where an agent keeps its identity: the current one, and the next one while it is taking over.

    The next one is stored before it is first used, and promoted once the server
    has welcomed it; so a crash at any point leaves one that the server accepts.
    Each method raises IdentityError where the store cannot be read or written.
    """

    def current(self) -> AgentIdentity | None:
        """Return the identity in use, or None before enrolment.

        Raises IdentityError where one is there that cannot be read.
        """

    def next(self) -> AgentIdentity | None:
        """Return the renewed identity that was not promoted yet, or None."""

    def save(self, identity: AgentIdentity) -> None:
        """Make ``identity`` the current one, durably, and forget a next one."""

    def save_next(self, identity: AgentIdentity) -> None:
        """Keep ``identity`` beside the current one, durably."""

    def promote(self) -> None:
        """Make the next identity the current one, durably. Does nothing where there is none."""

    def discard_next(self) -> None:
        """Forget the next identity, which the server refused."""


class MemoryIdentityStore:
    """An identity store that ends with the process: for tests and simulated agents."""

    def __init__(self, identity: AgentIdentity | None = None) -> None:
        self._current = identity
        self._next: AgentIdentity | None = None

    def current(self) -> AgentIdentity | None:
        """Return the identity in use, or None before enrolment."""
        return self._current

    def next(self) -> AgentIdentity | None:
        """Return the renewed identity that was not promoted yet, or None."""
        return self._next

    def save(self, identity: AgentIdentity) -> None:
        """Make ``identity`` the current one and forget a next one."""
        self._current, self._next = identity, None

    def save_next(self, identity: AgentIdentity) -> None:
        """Keep ``identity`` beside the current one."""
        self._next = identity

    def promote(self) -> None:
        """Make the next identity the current one."""
        if self._next is not None:
            self._current, self._next = self._next, None

    def discard_next(self) -> None:
        """Forget the next identity."""
        self._next = None


def generate_key() -> PrivateKey:
    """Make a fresh ECDSA P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_to_pem(key: PrivateKey) -> bytes:
    """Return ``key`` as unencrypted PKCS #8 PEM, for a file that only its owner reads."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def certificate_signing_request(key: PrivateKey, agent_id: str) -> bytes:
    """Return a PKCS #10 request in DER with subject CN=``agent_id`` and no extension.

    Raises ValueError where ``agent_id`` is not one.
    """
    if not AGENT_ID_PATTERN.match(agent_id):
        raise ValueError(
            f"agent id {agent_id!r}: use 1 to 63 lower-case letters, digits and hyphens, "
            "with a letter or digit first and last"
        )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, agent_id)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)


def identity_from_certificate(
    agent_id: str,
    spiffe_id: str,
    key: PrivateKey,
    issued: enrollment_service_pb2.IssuedCertificate,
    agent_addresses: Sequence[str],
) -> AgentIdentity:
    """Put together what the server issued with the key that it was issued for.

    Raises IdentityError where the certificate is not for ``key``, or a part is missing.
    """
    if not issued.chain or not issued.trust_bundle:
        raise IdentityError("the server issued no certificate chain or no trust bundle: report this to it")
    try:
        chain = [x509.load_der_x509_certificate(der) for der in issued.chain]
        roots = [x509.load_der_x509_certificate(der) for der in issued.trust_bundle]
    except ValueError as error:
        raise IdentityError("the server issued a certificate that cannot be parsed") from error
    if chain[0].public_key() != key.public_key():
        raise IdentityError("the server issued a certificate for another key than the one asked for")
    return AgentIdentity(
        agent_id=agent_id,
        spiffe_id=spiffe_id,
        key_pem=key_to_pem(key),
        chain_pem=_pem(chain),
        trust_bundle_pem=_pem(roots),
        not_before=issued.not_before.ToDatetime(UTC),
        not_after=issued.not_after.ToDatetime(UTC),
        renew_after=issued.renew_after.ToDatetime(UTC),
        agent_addresses=tuple(agent_addresses),
    )


def _pem(certificates: Sequence[x509.Certificate]) -> bytes:
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)
