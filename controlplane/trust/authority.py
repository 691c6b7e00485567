"""A certificate authority: one root key that signs leaves itself, without intermediates."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from controlplane.callers import IdentityKind, write_spiffe_id
from controlplane.errors import Unavailable

ROOT_LIFE = timedelta(days=3650)

BACKDATE = timedelta(minutes=5)
"""How long before its issue a certificate is valid already: clocks of agents that run behind by up
to this accept it. It never lengthens what follows: ``not_after`` and half life count from the issue."""


class BrokenAuthority(Exception):
    """A root on disk cannot be used; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class SignedLeaf:
    """A signed certificate and what the database keeps of it.

    ``serial`` is lower-case hexadecimal; ``not_before`` and ``not_after`` are whole
    seconds, as X.509 writes them (RFC 5280, section 4.1.2.5).
    """

    der: bytes
    serial: str
    not_before: datetime
    not_after: datetime

    @property
    def pem(self) -> bytes:
        """The certificate in PEM."""
        return x509.load_der_x509_certificate(self.der).public_bytes(serialization.Encoding.PEM)


class CertificateAuthority:
    """A root with its key.

    The root names its trust domain as SPIFFE X509-SVID section 4.1 asks, in a URI
    without a path, so that a folder cannot be served under another domain by accident.
    """

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key
        self._identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
        self.trust_domain = _trust_domain(certificate)
        self.certificate_der = certificate.public_bytes(serialization.Encoding.DER)
        self.certificate_pem = certificate.public_bytes(serialization.Encoding.PEM)
        self.digest = root_digest(self.certificate_der)

    @classmethod
    def create(cls, common_name: str, trust_domain: str, now: datetime) -> CertificateAuthority:
        """Make a root on P-256 for ten years that may sign leaves only (path length 0)."""
        key = new_key()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        begin = now.replace(microsecond=0)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin - BACKDATE)
            .not_valid_after(begin + ROOT_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]),
                critical=False,
            )
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    @classmethod
    def load(cls, certificate_pem: bytes, key_pem: bytes) -> CertificateAuthority:
        """Read a root that ``create`` made.

        Raises ``BrokenAuthority`` where a part cannot be read, or where they do not belong together.
        """
        try:
            certificate = x509.load_pem_x509_certificate(certificate_pem)
            key = serialization.load_pem_private_key(key_pem, password=None)
        except (ValueError, TypeError) as error:
            raise BrokenAuthority("the certificate or the key is not readable PEM") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise BrokenAuthority("the key is not the one of the certificate")
        return cls(certificate, key)

    @property
    def key_pem(self) -> bytes:
        """The key in PKCS #8, not encrypted; only for writing it to its file."""
        return private_pem(self._key)

    def sign_client(
        self, public_key: CertificatePublicKeyTypes, kind: str, name: str, life: timedelta, now: datetime
    ) -> SignedLeaf:
        """Sign a client's leaf with exactly one URI SAN, ``spiffe://<trust domain>/<kind>/<name>``.

        ``kind`` is an ``IdentityKind``'s value, and ``name`` must have passed ``callers.is_name``; it is not
        checked again.
        Raises ``Unavailable`` where the root's own time is over, or has not begun.
        """
        spiffe_id = write_spiffe_id(self.trust_domain, IdentityKind(kind), name)
        names = [x509.UniformResourceIdentifier(spiffe_id)]
        return self._sign(public_key, name, names, ExtendedKeyUsageOID.CLIENT_AUTH, life, now)

    def sign_server(
        self,
        public_key: CertificatePublicKeyTypes,
        hosts: Sequence[str],
        life: timedelta,
        now: datetime,
    ) -> SignedLeaf:
        """Sign a server's leaf for host names and IP addresses.

        Raises ``ValueError`` for a name that is neither, and ``Unavailable`` as ``sign_client``.
        """
        names = [_host_name(host) for host in hosts]
        # 64 characters are all that X.520 allows in a common name; nothing verifies a server by it.
        return self._sign(public_key, hosts[0][:64], names, ExtendedKeyUsageOID.SERVER_AUTH, life, now)

    def issued(self, certificate: x509.Certificate) -> bool:
        """Return whether this root signed ``certificate``; says nothing of its time."""
        try:
            certificate.verify_directly_issued_by(self._certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True

    def _sign(
        self,
        public_key: CertificatePublicKeyTypes,
        common_name: str,
        names: Sequence[x509.GeneralName],
        usage: x509.ObjectIdentifier,
        life: timedelta,
        now: datetime,
    ) -> SignedLeaf:
        not_before, not_after = self._validity(life, now)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
            .issuer_name(self._certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(not_before)
            .not_valid_after(not_after)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(self._identifier, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        der = certificate.public_bytes(serialization.Encoding.DER)
        return SignedLeaf(der, f"{certificate.serial_number:x}", not_before, not_after)

    def _validity(self, life: timedelta, now: datetime) -> tuple[datetime, datetime]:
        root = self._certificate
        issued = now.replace(microsecond=0)
        # A leaf that outlives its root, or is older, fails verification in some stacks and not in others.
        not_before = max(issued - BACKDATE, root.not_valid_before_utc)
        not_after = min(issued + life, root.not_valid_after_utc)
        if issued + life <= root.not_valid_before_utc:
            raise Unavailable(
                "UNAVAILABLE",
                f"the root begins at {root.not_valid_before_utc:%Y-%m-%d %H:%M:%SZ} only: an operator must "
                "set the clock",
            )
        if not_after <= issued:
            raise Unavailable(
                "UNAVAILABLE",
                f"the root ended at {root.not_valid_after_utc:%Y-%m-%d}: an operator must make a new one",
            )
        return not_before, not_after


def root_digest(der: bytes) -> str:
    """Return what a join token carries of a root: SHA-256 of its DER in base64url without padding."""
    return base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()


def new_key() -> ec.EllipticCurvePrivateKey:
    """Make a private key on P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PKCS #8 in PEM, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _trust_domain(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        [uri] = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, ValueError) as error:
        raise BrokenAuthority("the root does not name its trust domain in one URI") from error
    return urlsplit(uri).netloc


def _host_name(host: str) -> x509.GeneralName:
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
