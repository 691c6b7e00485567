"""Who is at the other end of a connection: the identity that its certificate proves.

TLS has checked the chain to the listener's root. What TLS in gRPC does not do is
done here, at every call: a resumed session skips the expiry, there is no
revocation, and the library falls back to the common name where there is no SAN.
Ids follow SPIFFE-ID and X509-SVID: exactly one URI SAN.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from controlplane.callers import Caller, IdentityKind, read_spiffe_id
from controlplane.clock import Clock, to_micros
from controlplane.errors import ServiceError, Unauthenticated

REMEMBERED = 32_768
"""Certificates whose parsed form is kept, some 16 MiB: as many as a process may have agents, and more.

An agent opens all its streams with the same one; were there fewer places than agents that come in turn,
each would find its own just forgotten.
"""

_RSA_BITS = 3072
_CURVES = (ec.SECP256R1, ec.SECP384R1)


def _invalid(message: str) -> ServiceError:
    return Unauthenticated("IDENTITY_INVALID", message)


class Peers:
    """Turns the authentication context of a call into its ``Caller``.

    ``denied`` is asked at each call with the serial number in lower-case hexadecimal, and
    ``seen`` is told of each caller that may call; neither may block.
    """

    def __init__(
        self,
        trust_domain: str,
        clock: Clock,
        denied: Callable[[str], bool],
        seen: Callable[[Caller], None] = lambda _caller: None,
    ) -> None:
        self._trust_domain = trust_domain
        self._clock = clock
        self._denied = denied
        self._seen = seen
        self._parsed: OrderedDict[bytes, Caller] = OrderedDict()

    def identify(self, auth_context: Mapping[str, Iterable[bytes]]) -> Caller:
        """Return who calls.

        Raises ``Unauthenticated`` with IDENTITY_INVALID, CERTIFICATE_EXPIRED or CERTIFICATE_REVOKED.
        """
        pem = next(iter(auth_context.get("x509_pem_cert", ())), None)
        if pem is None:
            raise _invalid("client certificate: there is none; connect with the one that was issued to you")
        caller = self._remembered(pem)
        if to_micros(self._clock.now()) < caller.not_before:
            raise Unauthenticated(
                "CERTIFICATE_EXPIRED",
                f"client certificate: not valid yet for {caller.spiffe_id}; compare the clocks",
            )
        self.check(caller)
        self._seen(caller)
        return caller

    def check(self, caller: Caller) -> None:
        """Look again at who was identified before: nothing may outlast its certificate.

        Raises ``Unauthenticated`` with CERTIFICATE_EXPIRED or CERTIFICATE_REVOKED.
        """
        if to_micros(self._clock.now()) > caller.not_after:
            raise Unauthenticated(
                "CERTIFICATE_EXPIRED", f"client certificate: expired for {caller.spiffe_id}; get a new one"
            )
        if self._denied(caller.serial):
            remedy = "enrol again" if caller.kind is IdentityKind.AGENT else "ask an operator for another"
            raise Unauthenticated(
                "CERTIFICATE_REVOKED",
                f"client certificate: serial {caller.serial} of {caller.spiffe_id} is revoked; {remedy}",
            )

    def _remembered(self, pem: bytes) -> Caller:
        digest = sha256(pem).digest()
        caller = self._parsed.get(digest)
        if caller is None:
            caller = self._parsed[digest] = self._parse(pem)
            if len(self._parsed) > REMEMBERED:
                self._parsed.popitem(last=False)
        else:
            self._parsed.move_to_end(digest)
        return caller

    def _parse(self, pem: bytes) -> Caller:
        try:
            certificate = x509.load_pem_x509_certificate(pem)
            spiffe_id = _spiffe_id(certificate)
            _check_usage(certificate)
            _check_key(certificate)
        except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
            raise _invalid(
                "client certificate: its extensions cannot be read; have it issued again"
            ) from error
        kind, name = self._kind_and_name(spiffe_id)
        return Caller(
            kind=kind,
            name=name,
            spiffe_id=spiffe_id,
            serial=f"{certificate.serial_number:x}",
            not_after=to_micros(certificate.not_valid_after_utc),
            not_before=to_micros(certificate.not_valid_before_utc),
        )

    def _kind_and_name(self, spiffe_id: str) -> tuple[IdentityKind, str]:
        found = read_spiffe_id(spiffe_id, self._trust_domain)
        if found is None:
            raise _invalid(
                f"client certificate: {spiffe_id[:256]!r} is not spiffe://{self._trust_domain}/ with agent,"
                " operator or integrator and /NAME; a name has 1 to 63 of a-z, 0-9 and, inside, hyphens"
            )
        return found


def _spiffe_id(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise _invalid("client certificate: it has no URI SAN; exactly one is needed") from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise _invalid(f"client certificate: it has {len(uris)} URI SANs; exactly one is needed")
    return uris[0]


def _check_usage(certificate: x509.Certificate) -> None:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    if ExtendedKeyUsageOID.CLIENT_AUTH not in usage:
        raise _invalid("client certificate: its extended key usage lacks clientAuth")


def _check_key(certificate: x509.Certificate) -> None:
    key = certificate.public_key()
    strong = (
        isinstance(key, ed25519.Ed25519PublicKey)
        or (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES))
        or (isinstance(key, rsa.RSAPublicKey) and key.key_size >= _RSA_BITS)
    )
    if not strong:
        raise _invalid(
            "client certificate: its key is too weak; use ECDSA on P-256 or P-384, Ed25519,"
            f" or RSA of at least {_RSA_BITS} bits"
        )
