"""Certificate signing requests: what an agent or an administrator may ask for, and nothing beside it.

PKCS #10 (RFC 2986) in DER. The certificate is made from the key alone; all else in a
request is checked, and refused where it asks for more, so that its owner learns of a
wrong request at once and not by a name that is missing later.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import NameOID

from controlplane.errors import InvalidArgument, invalid

MAX_REQUEST_BYTES = 4096
"""The contract's limit; RSA with 8,192 bits and a name fit in."""

MIN_RSA_BITS = 3072
"""128 bits of strength (NIST SP 800-57 part 1, table 2)."""

MAX_RSA_BITS = 8192
"""Verifying costs the square of it: a longer key is a way to burn the server's CPU."""

_CURVES = (ec.SECP256R1, ec.SECP384R1)
_FIELD = "certificate_signing_request"


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """The key of a good request, and the SHA-256 of its SubjectPublicKeyInfo in DER."""

    public_key: CertificatePublicKeyTypes
    key_digest: bytes


def check(der: bytes, name: str, spiffe_id: str) -> CheckedRequest:
    """Return the key that a request proves to hold.

    Raises ``InvalidArgument`` with a violation on ``certificate_signing_request`` and the
    reason CSR_MALFORMED, CSR_KEY_WEAK, CSR_SUBJECT_MISMATCH or CSR_EXTRA_NAMES.
    """
    request = _parse(der)
    key = _key_of(request)
    _check_signature(request)
    _check_subject(request, name)
    _check_extensions(request, spiffe_id)
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return CheckedRequest(key, hashlib.sha256(spki).digest())


def _refuse(reason: str, description: str) -> InvalidArgument:
    return invalid(_FIELD, description, reason=reason)


def _parse(der: bytes) -> x509.CertificateSigningRequest:
    if len(der) > MAX_REQUEST_BYTES:
        raise _refuse("CSR_MALFORMED", f"has {len(der)} bytes; at most {MAX_REQUEST_BYTES} are read")
    try:
        request = x509.load_der_x509_csr(der)
    except (ValueError, x509.InvalidVersion):
        raise _refuse("CSR_MALFORMED", "cannot be parsed: send PKCS #10 in DER, not PEM") from None
    # A signature is whole bytes, so its bit string leaves none unused (X.690, 8.6.2.2). The parser takes
    # one that says otherwise where the last bits happen to be zero; a request has one form here.
    if not der.endswith(b"\0" + request.signature):
        raise _refuse("CSR_MALFORMED", "its signature is not in DER: send it as your library wrote it")
    return request


def _key_of(request: x509.CertificateSigningRequest) -> CertificatePublicKeyTypes:
    try:
        key = request.public_key()
    except UnsupportedAlgorithm:
        raise _weak("a kind that is not known") from None
    except ValueError:
        raise _refuse("CSR_MALFORMED", "its public key cannot be parsed: make a new one") from None
    if isinstance(key, rsa.RSAPublicKey):
        if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
            raise _weak(f"RSA of {key.key_size} bits")
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, _CURVES):
            raise _weak(f"ECDSA on {key.curve.name}")
    elif not isinstance(key, ed25519.Ed25519PublicKey):
        raise _weak("a kind that is not accepted")
    return key


def _weak(what: str) -> InvalidArgument:
    return _refuse(
        "CSR_KEY_WEAK",
        f"its key is {what}: use ECDSA on P-256 or P-384, Ed25519, or RSA of {MIN_RSA_BITS} to "
        f"{MAX_RSA_BITS} bits",
    )


def _check_signature(request: x509.CertificateSigningRequest) -> None:
    try:
        proven = request.is_signature_valid
    except (UnsupportedAlgorithm, ValueError):
        proven = False  # a digest or padding that the library does not verify, such as MD5
    if not proven:
        raise _refuse("CSR_MALFORMED", "its signature is not by its own key: sign it with that key")


def _check_subject(request: x509.CertificateSigningRequest, name: str) -> None:
    try:
        names = [(attribute.oid, attribute.value) for attribute in request.subject]
    except ValueError:
        raise _refuse("CSR_MALFORMED", "its subject cannot be parsed") from None
    if names != [(NameOID.COMMON_NAME, name)]:
        raise _refuse("CSR_SUBJECT_MISMATCH", f"its subject is not exactly CN={name}: make it so")


def _check_extensions(request: x509.CertificateSigningRequest, spiffe_id: str) -> None:
    try:
        values = [extension.value for extension in request.extensions]
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        raise _refuse("CSR_EXTRA_NAMES", "its extensions cannot be read: ask for none") from None
    own = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)])
    if values not in ([], [own]):
        raise _refuse(
            "CSR_EXTRA_NAMES",
            f"asks for more than a subject alternative name of exactly {spiffe_id}: ask for that, or nothing",
        )
