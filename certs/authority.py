"""Roots and the certificates that they sign, good ones; `certs.bad` bends the same builder."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DEFAULT_TRUST_DOMAIN = "fleetwright.local"
DEFAULT_HOSTS = ("localhost", "127.0.0.1", "::1")
ROOT_LIFE = timedelta(days=3650)
SERVER_LIFE = timedelta(days=397)  # the longest that CA/Browser Forum clients accept
CLIENT_LIFE = timedelta(days=30)
BACKDATE = timedelta(minutes=5)  # tolerates clocks that run a little behind
ROOT_BACKDATE = timedelta(days=1)  # so that a root is always older than an expired leaf of it

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")  # SPIFFE-ID, section 2.1
_PRINCIPAL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_ROLES = ("agent", "operator", "integrator")

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Identity:
    """A private key and its certificate chain, in PEM, as gRPC takes them.

    Attributes:
        key_pem: PKCS #8, not encrypted.
        chain_pem: the leaf first; a server's chain ends with its root.
    """

    key_pem: bytes
    chain_pem: bytes

    def __repr__(self) -> str:
        """Name the certificate and never the key, which a failing test would print."""
        return f"Identity({self.certificate.subject.rfc4514_string()!r})"

    @property
    def certificate(self) -> x509.Certificate:
        """The leaf, parsed."""
        return x509.load_pem_x509_certificates(self.chain_pem)[0]


@dataclass(frozen=True)
class Root:
    """A certificate authority that signs leaves itself, without intermediates."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        """The certificate in PEM: what the other side trusts."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The key in PEM (PKCS #8, not encrypted)."""
        return private_pem(self.key)

    @classmethod
    def from_pem(cls, key_pem: bytes, certificate_pem: bytes) -> Root:
        """Read a root that was made before.

        Raises:
            ValueError: the key is not an elliptic-curve key, or is another certificate's.
        """
        key = serialization.load_pem_private_key(key_pem, password=None)
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ValueError("root: the key is not that of the certificate; make both again")
        return cls(key, certificate)


def spiffe_id(role: str, name: str, trust_domain: str = DEFAULT_TRUST_DOMAIN) -> str:
    """Write the SPIFFE id of an agent, operator or integrator.

    Raises:
        ValueError: the role, the name or the trust domain breaks its rule; the text says which.
    """
    if role not in _ROLES:
        raise ValueError(f"role {role!r}: use one of {', '.join(_ROLES)}")
    if not _PRINCIPAL.fullmatch(name):
        raise ValueError(
            f"{role} {name!r}: use 1 to 63 lower-case letters, digits and hyphens, "
            "with a letter or digit first and last"
        )
    if not _TRUST_DOMAIN.fullmatch(trust_domain):
        raise ValueError(
            f"trust domain {trust_domain!r}: use lower-case letters, digits, dots, hyphens and underscores"
        )
    return f"spiffe://{trust_domain}/{role}/{name}"


def make_root(name: str, *, now: datetime) -> Root:
    """Make a root on P-256, good from a day before `now`, for ten years."""
    key = new_key()
    subject = subject_of(name)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - ROOT_BACKDATE)
        .not_valid_after(now + ROOT_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Root(key, certificate)


def issue_server(root: Root, hosts: Sequence[str] = DEFAULT_HOSTS, *, now: datetime) -> Identity:
    """Issue a server's certificate for DNS names and IP addresses.

    The chain carries the root, so that an agent can check it against the digest in its join token.
    """
    if not hosts:
        raise ValueError("hosts: a server's certificate needs at least one name or address")
    leaf = issue(
        root,
        common_name=hosts[0],
        names=[host_name(host) for host in hosts],
        usages=[ExtendedKeyUsageOID.SERVER_AUTH],
        not_before=now - BACKDATE,
        not_after=now + SERVER_LIFE,
    )
    return Identity(leaf.key_pem, leaf.chain_pem + root.pem)


def issue_client(
    root: Root,
    role: str,
    name: str,
    *,
    now: datetime,
    trust_domain: str = DEFAULT_TRUST_DOMAIN,
    life: timedelta = CLIENT_LIFE,
) -> Identity:
    """Issue an agent's, operator's or integrator's certificate with exactly one URI SAN."""
    return issue(
        root,
        common_name=name,
        names=[x509.UniformResourceIdentifier(spiffe_id(role, name, trust_domain))],
        usages=[ExtendedKeyUsageOID.CLIENT_AUTH],
        not_before=now - BACKDATE,
        not_after=now + life,
    )


def issue(
    root: Root,
    *,
    common_name: str,
    names: Iterable[x509.GeneralName],
    usages: Iterable[x509.ObjectIdentifier],
    not_before: datetime,
    not_after: datetime,
    key: PrivateKey | None = None,
) -> Identity:
    """Sign a leaf exactly as told, good or bad.

    Args:
        root: what signs.
        common_name: the whole subject.
        names: subject alternative names; where empty, the extension is left out.
        usages: extended key usages.
        not_before: first second, timezone-aware.
        not_after: last second, timezone-aware.
        key: the leaf's key; a fresh one on P-256 by default.
    """
    key = key or new_key()
    public = key.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject_of(common_name))
        .issuer_name(root.certificate.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root.key.public_key()), critical=False
        )
    )
    if alternative := list(names):
        builder = builder.add_extension(x509.SubjectAlternativeName(alternative), critical=False)
    certificate = builder.sign(root.key, hashes.SHA256())
    return Identity(private_pem(key), certificate.public_bytes(serialization.Encoding.PEM))


def new_key() -> ec.EllipticCurvePrivateKey:
    """Make a key on P-256: signs in microseconds, where RSA takes a second to make."""
    return ec.generate_private_key(ec.SECP256R1())


def weak_key(bits: int = 1024) -> rsa.RSAPrivateKey:
    """Make an RSA key below the 3,072 bits that the contract asks for."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def private_pem(key: PrivateKey) -> bytes:
    """Write a key as PKCS #8 in PEM, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def subject_of(name: str) -> x509.Name:
    """Write the subject `CN=name` and nothing else."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def host_name(host: str) -> x509.GeneralName:
    """Write a DNS name or an IP address as a subject alternative name."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
