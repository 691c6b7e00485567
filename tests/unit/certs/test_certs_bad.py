from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from certs import bad, requests
from certs.authority import Identity, Root, make_root, spiffe_id

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
OWN = x509.UniformResourceIdentifier(spiffe_id("agent", "agent-7"))


@pytest.fixture(scope="module")
def root() -> Root:
    return make_root("Test agents", now=NOW)


def uris(certificate: x509.Certificate) -> list[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def request_of(made: requests.SigningRequest) -> x509.CertificateSigningRequest:
    return x509.load_der_x509_csr(made.der)


@pytest.mark.parametrize("kind", bad.BAD_CERTIFICATES)
def test_every_bad_certificate_comes_with_its_own_key(root: Root, kind: str) -> None:
    identity = bad.BAD_CERTIFICATES[kind](root, "agent", "agent-7", now=NOW)
    key = load_pem_private_key(identity.key_pem, password=None)
    assert key.public_key() == identity.certificate.public_key()


@pytest.mark.parametrize("kind", [kind for kind in bad.BAD_CERTIFICATES if kind != "wrong-root"])
def test_every_bad_certificate_but_one_is_signed_by_the_trusted_root(root: Root, kind: str) -> None:
    identity = bad.BAD_CERTIFICATES[kind](root, "agent", "agent-7", now=NOW)
    identity.certificate.verify_directly_issued_by(root.certificate)


@pytest.mark.parametrize("make", [bad.wrong_root, bad.expired, bad.not_yet_valid, bad.wrong_usage])
def test_path_validation_refuses(root: Root, make: Callable[..., Identity]) -> None:
    leaf = make(root, "agent", "agent-7", now=NOW).certificate
    verifier = PolicyBuilder().store(Store([root.certificate])).time(NOW).build_client_verifier()
    with pytest.raises(VerificationError):
        verifier.verify(leaf, [])


def test_a_wrong_root_has_the_name_of_the_trusted_one_and_not_its_key(root: Root) -> None:
    leaf = bad.wrong_root(root, "agent", "agent-7", now=NOW).certificate
    assert leaf.issuer == root.certificate.subject
    with pytest.raises(InvalidSignature):
        leaf.verify_directly_issued_by(root.certificate)


def test_an_expired_one_was_good_and_its_root_was_there_then(root: Root) -> None:
    leaf = bad.expired(root, "agent", "agent-7", now=NOW).certificate
    assert root.certificate.not_valid_before_utc < leaf.not_valid_before_utc < leaf.not_valid_after_utc < NOW


def test_one_that_is_not_yet_valid_will_be(root: Root) -> None:
    assert bad.not_yet_valid(root, "agent", "agent-7", now=NOW).certificate.not_valid_before_utc > NOW


def test_a_wrong_usage_is_a_servers_alone(root: Root) -> None:
    leaf = bad.wrong_usage(root, "agent", "agent-7", now=NOW).certificate
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_two_uri_sans_are_two_good_ones(root: Root) -> None:
    leaf = bad.two_uri_sans(root, "agent", "agent-7", now=NOW).certificate
    assert uris(leaf) == [spiffe_id("agent", "agent-7"), spiffe_id("agent", "another")]


def test_no_uri_san_leaves_only_the_common_name(root: Root) -> None:
    leaf = bad.no_uri_san(root, "agent", "agent-7", now=NOW).certificate
    assert leaf.subject.rfc4514_string() == "CN=agent-7"
    with pytest.raises(x509.ExtensionNotFound):
        leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)


@pytest.mark.parametrize("own", ["fleetwright.local", bad.OTHER_TRUST_DOMAIN])
def test_another_trust_domain_is_never_the_own_one(root: Root, own: str) -> None:
    leaf = bad.another_trust_domain(root, "agent", "agent-7", now=NOW, trust_domain=own).certificate
    [uri] = uris(leaf)
    assert not uri.startswith(f"spiffe://{own}/")
    assert uri.endswith("/agent/agent-7")


def test_a_weak_key_is_rsa_of_1024_bits(root: Root) -> None:
    key = bad.weak_rsa_key(root, "agent", "agent-7", now=NOW).certificate.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    assert key.key_size == 1024


@pytest.mark.parametrize(("kind", "bits"), [("csr-weak-key-1024", 1024), ("csr-weak-key-2048", 2048)])
def test_a_weak_request_says_its_size(kind: str, bits: int) -> None:
    key = request_of(requests.BAD_REQUESTS[kind]("agent-7")).public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    assert key.key_size == bits


@pytest.mark.parametrize(
    ("make", "subject"),
    [
        (requests.wrong_subject, "CN=not-agent-7"),
        (requests.extra_subject, "O=administrators,CN=agent-7"),
        (requests.no_subject, ""),
    ],
)
def test_a_request_with_a_bad_subject_is_good_otherwise(
    make: Callable[[str], requests.SigningRequest], subject: str
) -> None:
    request = request_of(make("agent-7"))
    assert request.is_signature_valid
    assert request.subject.rfc4514_string() == subject


def test_extra_names_stand_beside_the_own_one() -> None:
    [extension] = request_of(requests.extra_dns_name("agent-7")).extensions
    assert isinstance(extension.value, x509.SubjectAlternativeName)
    assert list(extension.value) == [OWN, x509.DNSName("localhost")]


def test_another_spiffe_id_stands_alone() -> None:
    [extension] = request_of(requests.another_spiffe_id("agent-7")).extensions
    assert isinstance(extension.value, x509.SubjectAlternativeName)
    assert OWN not in extension.value


def test_an_extra_extension_asks_to_be_an_authority() -> None:
    [extension] = request_of(requests.extra_extension("agent-7")).extensions
    assert isinstance(extension.value, x509.BasicConstraints)
    assert extension.value.ca


def test_a_broken_signature_parses_and_does_not_verify() -> None:
    request = request_of(requests.broken_signature("agent-7"))
    assert request.subject.rfc4514_string() == "CN=agent-7"
    assert not request.is_signature_valid


@pytest.mark.parametrize("make", [requests.not_a_request, requests.truncated])
def test_what_is_no_request_does_not_parse(make: Callable[[str], requests.SigningRequest]) -> None:
    with pytest.raises(ValueError, match="asn1"):
        request_of(make("agent-7"))
