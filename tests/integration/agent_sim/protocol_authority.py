"""A certificate authority for tests: one root, a server certificate, agents' certificates."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from fleetwright.v1 import enrollment_service_pb2

from agent_sim.protocol.identity import AgentIdentity, generate_key, identity_from_certificate

PEM = serialization.Encoding.PEM
DER = serialization.Encoding.DER


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


class Authority:
    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        self.root = (
            x509.CertificateBuilder()
            .subject_name(_name("test root"))
            .issuer_name(_name("test root"))
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.server_key = ec.generate_private_key(ec.SECP256R1())
        san = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))]
        )
        self.server_certificate = self._sign(
            _name("server"), self.server_key.public_key(), san, ExtendedKeyUsageOID.SERVER_AUTH
        )

    @property
    def root_pem(self) -> bytes:
        return self.root.public_bytes(PEM)

    @property
    def root_digest(self) -> bytes:
        return self.root.fingerprint(hashes.SHA256())

    @property
    def server_key_pem(self) -> bytes:
        return self.server_key.private_bytes(
            PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    @property
    def server_chain_pem(self) -> bytes:
        return self.server_certificate.public_bytes(PEM) + self.root_pem

    def issue(
        self, csr_der: bytes, agent_id: str, renew_after: timedelta = timedelta(hours=12)
    ) -> enrollment_service_pb2.IssuedCertificate:
        request = x509.load_der_x509_csr(csr_der)
        key = request.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        uri = x509.UniformResourceIdentifier(spiffe_id(agent_id))
        certificate = self._sign(
            request.subject, key, x509.SubjectAlternativeName([uri]), ExtendedKeyUsageOID.CLIENT_AUTH
        )
        issued = enrollment_service_pb2.IssuedCertificate(
            chain=[certificate.public_bytes(DER)], trust_bundle=[self.root.public_bytes(DER)]
        )
        issued.not_before.FromDatetime(certificate.not_valid_before_utc)
        issued.not_after.FromDatetime(certificate.not_valid_after_utc)
        issued.renew_after.FromDatetime(datetime.now(UTC) + renew_after)
        return issued

    def identity(
        self, agent_id: str, address: str, renew_after: timedelta = timedelta(hours=12)
    ) -> AgentIdentity:
        from agent_sim.protocol.identity import certificate_signing_request

        key = generate_key()
        issued = self.issue(certificate_signing_request(key, agent_id), agent_id, renew_after)
        return identity_from_certificate(agent_id, spiffe_id(agent_id), key, issued, [address])

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        san: x509.SubjectAlternativeName,
        usage: x509.ObjectIdentifier,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.root.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(hours=24))
            .add_extension(san, critical=False)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .sign(self._key, hashes.SHA256())
        )


def spiffe_id(agent_id: str) -> str:
    return f"spiffe://fleetwright.local/agent/{agent_id}"
