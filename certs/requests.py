"""Certificate signing requests, the good one and every bad one that enrolment must refuse.

All are PKCS #10 (RFC 2986) in DER, as `EnrollRequest.certificate_signing_request` carries them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from certs.authority import (
    DEFAULT_TRUST_DOMAIN,
    PrivateKey,
    new_key,
    private_pem,
    spiffe_id,
    subject_of,
    weak_key,
)


@dataclass(frozen=True)
class SigningRequest:
    """A request and the key that signed it.

    Attributes:
        der: the request, in DER where it can be parsed at all.
        key_pem: PKCS #8, not encrypted.
    """

    der: bytes
    key_pem: bytes

    def __repr__(self) -> str:
        """Say how long it is and never the key, which a failing test would print."""
        return f"SigningRequest({len(self.der)} bytes)"


def good(agent_id: str, *, trust_domain: str = DEFAULT_TRUST_DOMAIN) -> SigningRequest:
    """Subject exactly `CN=<agent id>`, a key on P-256, no extension."""
    spiffe_id("agent", agent_id, trust_domain)
    return _signed(_request(agent_id), new_key())


def good_with_spiffe_id(agent_id: str, *, trust_domain: str = DEFAULT_TRUST_DOMAIN) -> SigningRequest:
    """As `good`, and its subject alternative name is the agent's own SPIFFE id."""
    own = x509.UniformResourceIdentifier(spiffe_id("agent", agent_id, trust_domain))
    return _signed(_request(agent_id, [own]), new_key())


def weak_rsa_1024(agent_id: str, *, trust_domain: str = DEFAULT_TRUST_DOMAIN) -> SigningRequest:
    """An RSA key of 1,024 bits."""
    return _signed(_request(agent_id), weak_key(1024))


def weak_rsa_2048(agent_id: str, *, trust_domain: str = DEFAULT_TRUST_DOMAIN) -> SigningRequest:
    """An RSA key of 2,048 bits: common, and below the contract's 3,072."""
    return _signed(_request(agent_id), weak_key(2048))


def wrong_subject(agent_id: str, *, trust_domain: str = DEFAULT_TRUST_DOMAIN) -> SigningRequest:
    """The common name of another agent."""
    return _signed(_request(f"not-{agent_id}"[:63]), new_key())


def extra_subject(agent_id: str, *, trust_domain: str = DEFAULT_TRUST_DOMAIN) -> SigningRequest:
    """The right common name, and an organisation beside it."""
    subject = [*subject_of(agent_id), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "administrators")]
    return _signed(x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject)), new_key())


def no_subject(agent_id: str, *, trust_domain: str = DEFAULT_TRUST_DOMAIN) -> SigningRequest:
    """An empty subject."""
    return _signed(x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])), new_key())


def extra_dns_name(agent_id: str, *, trust_domain: str = DEFAULT_TRUST_DOMAIN) -> SigningRequest:
    """The agent's own SPIFFE id, and a DNS name that would make it a server."""
    own = x509.UniformResourceIdentifier(spiffe_id("agent", agent_id, trust_domain))
    return _signed(_request(agent_id, [own, x509.DNSName("localhost")]), new_key())


def another_spiffe_id(agent_id: str, *, trust_domain: str = DEFAULT_TRUST_DOMAIN) -> SigningRequest:
    """The SPIFFE id of an operator as the only name."""
    other = x509.UniformResourceIdentifier(spiffe_id("operator", "admin", trust_domain))
    return _signed(_request(agent_id, [other]), new_key())


def extra_extension(agent_id: str, *, trust_domain: str = DEFAULT_TRUST_DOMAIN) -> SigningRequest:
    """Basic constraints that ask to become a certificate authority."""
    authority = x509.BasicConstraints(ca=True, path_length=None)
    return _signed(_request(agent_id).add_extension(authority, critical=True), new_key())


def broken_signature(agent_id: str, *, trust_domain: str = DEFAULT_TRUST_DOMAIN) -> SigningRequest:
    """The body of one key with the signature of another: it parses, and proves no possession."""
    signature = x509.load_der_x509_csr(good(agent_id).der).signature
    victim = good(agent_id)
    genuine = x509.load_der_x509_csr(victim.der).signature
    while len(signature) != len(
        genuine
    ):  # ECDSA signatures in DER are 70 to 72 bytes; lengths are encoded outside
        signature = x509.load_der_x509_csr(good(agent_id).der).signature
    return SigningRequest(victim.der.replace(genuine, signature), victim.key_pem)


def not_a_request(agent_id: str, *, trust_domain: str = DEFAULT_TRUST_DOMAIN) -> SigningRequest:
    """Bytes that are no PKCS #10 at all."""
    return SigningRequest(f"I am {agent_id}, let me in".encode(), private_pem(new_key()))


def truncated(agent_id: str, *, trust_domain: str = DEFAULT_TRUST_DOMAIN) -> SigningRequest:
    """The first half of a good request."""
    whole = good(agent_id)
    return SigningRequest(whole.der[: len(whole.der) // 2], whole.key_pem)


# The bad ones by the names that the command and parametrised tests use.
BAD_REQUESTS: MappingProxyType[str, Callable[..., SigningRequest]] = MappingProxyType(
    {
        "csr-weak-key-1024": weak_rsa_1024,
        "csr-weak-key-2048": weak_rsa_2048,
        "csr-wrong-subject": wrong_subject,
        "csr-extra-subject": extra_subject,
        "csr-no-subject": no_subject,
        "csr-extra-dns-name": extra_dns_name,
        "csr-another-spiffe-id": another_spiffe_id,
        "csr-extra-extension": extra_extension,
        "csr-broken-signature": broken_signature,
        "csr-not-a-request": not_a_request,
        "csr-truncated": truncated,
    }
)


def _request(
    agent_id: str, names: list[x509.GeneralName] | None = None
) -> x509.CertificateSigningRequestBuilder:
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject_of(agent_id))
    return builder.add_extension(x509.SubjectAlternativeName(names), critical=False) if names else builder


def _signed(builder: x509.CertificateSigningRequestBuilder, key: PrivateKey) -> SigningRequest:
    request = builder.sign(key, hashes.SHA256())
    return SigningRequest(request.public_bytes(serialization.Encoding.DER), private_pem(key))
