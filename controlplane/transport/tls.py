"""What a listener proves itself with, and how it is replaced while the listener runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """A server's key and chain in PEM, and the root that its clients must come from.

    ``client_root_pem`` is None where clients show no certificate.
    """

    key_pem: bytes = field(repr=False)
    chain_pem: bytes
    client_root_pem: bytes | None

    def check(self) -> None:
        """Raise ``ValueError`` unless key, chain and root can be read and belong together.

        gRPC keeps its old credentials in silence when new ones are bad, and fails a handshake with
        no reason when the first ones are.
        """
        leaf = x509.load_pem_x509_certificates(self.chain_pem)[0]
        key = serialization.load_pem_private_key(self.key_pem, password=None)
        if key.public_key() != leaf.public_key():
            raise ValueError("TLS material: the key is not the one of the chain's first certificate")
        if self.client_root_pem is not None:
            x509.load_pem_x509_certificates(self.client_root_pem)


class RotatingCredentials:
    """The credentials of one listener. Open connections keep what they were opened with.

    gRPC asks for news at each handshake. An answer other than None each time crashed it (SIGSEGV at
    50 parallel connects), so a new configuration is handed out once. It asks under a mutex of its
    own, in a thread of its own: taking from a deque is all that may happen there.
    """

    def __init__(self, material: TlsMaterial, on_handshake: Callable[[], None]) -> None:
        material.check()
        self._mutual = material.client_root_pem is not None
        self._on_handshake = on_handshake
        self._news: deque[grpc.ServerCertificateConfiguration] = deque(maxlen=1)
        self.credentials = grpc.dynamic_ssl_server_credentials(
            _configuration(material),
            self._fetch,  # type: ignore[arg-type] # None is allowed and means no news; the stub does not say so
            require_client_authentication=self._mutual,
        )

    def rotate(self, material: TlsMaterial) -> None:
        """Use ``material`` from the next handshake on; a bad one raises ``ValueError`` and is not used."""
        material.check()
        if (material.client_root_pem is not None) != self._mutual:
            raise ValueError("TLS material: whether clients show a certificate cannot change while listening")
        self._news.append(_configuration(material))

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        self._on_handshake()
        try:
            return self._news.popleft()
        except IndexError:
            return None


def _configuration(material: TlsMaterial) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(material.key_pem, material.chain_pem)], material.client_root_pem
    )
