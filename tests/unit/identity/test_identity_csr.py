from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.x509.oid import NameOID
from hypothesis import example, given
from hypothesis import strategies as st

from certs import requests
from controlplane.errors import InvalidArgument
from controlplane.identity import csr

AGENT = "node-1"
OWN = f"spiffe://fleetwright.local/agent/{AGENT}"

REASONS = {
    "csr-weak-key-1024": "CSR_KEY_WEAK",
    "csr-weak-key-2048": "CSR_KEY_WEAK",
    "csr-wrong-subject": "CSR_SUBJECT_MISMATCH",
    "csr-extra-subject": "CSR_SUBJECT_MISMATCH",
    "csr-no-subject": "CSR_SUBJECT_MISMATCH",
    "csr-extra-dns-name": "CSR_EXTRA_NAMES",
    "csr-another-spiffe-id": "CSR_EXTRA_NAMES",
    "csr-extra-extension": "CSR_EXTRA_NAMES",
    "csr-broken-signature": "CSR_MALFORMED",
    "csr-not-a-request": "CSR_MALFORMED",
    "csr-truncated": "CSR_MALFORMED",
}

Key = (
    ec.EllipticCurvePrivateKey
    | rsa.RSAPrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
    | dsa.DSAPrivateKey
)


def request(key: Key, *names: x509.GeneralName) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, AGENT)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    plain = isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    signed = builder.sign(key, None if plain else hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.DER)


def refused(der: bytes) -> InvalidArgument:
    with pytest.raises(InvalidArgument) as caught:
        csr.check(der, AGENT, OWN)
    assert [violation.field for violation in caught.value.violations] == ["certificate_signing_request"]
    return caught.value


@pytest.mark.parametrize("kind", sorted(requests.BAD_REQUESTS))
def test_each_bad_request_is_refused_with_its_reason(kind: str) -> None:
    bad = requests.BAD_REQUESTS[kind](AGENT)
    assert refused(bad.der).reason == REASONS[kind]


@pytest.mark.parametrize(
    "make",
    [
        lambda: ec.generate_private_key(ec.SECP256R1()),
        lambda: ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate,
        lambda: rsa.generate_private_key(65537, 3072),
    ],
    ids=["P-256", "P-384", "Ed25519", "RSA-3072"],
)
def test_each_strong_kind_of_key_is_accepted(make: Callable[[], Key]) -> None:
    key = make()
    assert csr.check(request(key), AGENT, OWN).public_key == key.public_key()


@pytest.mark.parametrize(
    "make",
    [
        lambda: ec.generate_private_key(ec.SECP521R1()),
        lambda: ec.generate_private_key(ec.SECP256K1()),
        ed448.Ed448PrivateKey.generate,
        lambda: dsa.generate_private_key(1024),
    ],
    ids=["P-521", "secp256k1", "Ed448", "DSA-1024"],
)
def test_a_kind_of_key_that_is_not_named_is_refused(make: Callable[[], Key]) -> None:
    assert refused(request(make())).reason == "CSR_KEY_WEAK"


def test_a_request_may_name_the_agents_own_spiffe_id() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    csr.check(request(key, x509.UniformResourceIdentifier(OWN)), AGENT, OWN)


def test_the_own_spiffe_id_twice_is_refused() -> None:
    own = x509.UniformResourceIdentifier(OWN)
    assert refused(request(ec.generate_private_key(ec.SECP256R1()), own, own)).reason == "CSR_EXTRA_NAMES"


def test_pem_is_refused_and_told_to_be_der() -> None:
    der = request(ec.generate_private_key(ec.SECP256R1()))
    pem = x509.load_der_x509_csr(der).public_bytes(serialization.Encoding.PEM)
    error = refused(pem)
    assert error.reason == "CSR_MALFORMED"
    assert "DER" in error.message


def test_a_request_over_the_limit_is_not_parsed() -> None:
    der = request(ec.generate_private_key(ec.SECP256R1()))
    assert refused(der + bytes(4096)).reason == "CSR_MALFORMED"


def test_the_same_key_has_the_same_digest_in_every_request() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    one, other = request(key), request(key)
    assert one != other
    assert csr.check(one, AGENT, OWN).key_digest == csr.check(other, AGENT, OWN).key_digest


GOOD = request(ec.generate_private_key(ec.SECP256R1()))


@given(st.binary(max_size=200))
def test_garbage_is_malformed(garbage: bytes) -> None:
    assert refused(garbage).reason == "CSR_MALFORMED"


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
@example(GOOD.index(b"\x02\x01\x00") + 2, 1)  # version 2, which the library reports in a way of its own
@example(GOOD.rindex(b"\x03", 0, len(GOOD) - 64) + 2, 1)  # a signature that says it has unused bits
def test_a_request_with_one_byte_changed_is_refused_in_order(place: int, change: int) -> None:
    bent = bytearray(GOOD)
    bent[place] ^= change
    assert refused(bytes(bent)).reason.startswith("CSR_")
