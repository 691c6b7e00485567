from __future__ import annotations

import hashlib
from base64 import urlsafe_b64decode
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from controlplane.errors import Unavailable
from controlplane.trust.authority import (
    BACKDATE,
    BrokenAuthority,
    CertificateAuthority,
    SignedLeaf,
    new_key,
    private_pem,
    root_digest,
)

NOW = datetime(2030, 1, 1, 12, 0, 0, 999_999, tzinfo=UTC)
SECOND = NOW.replace(microsecond=0)


@pytest.fixture
def root() -> CertificateAuthority:
    return CertificateAuthority.create("Test root", "fleetwright.local", NOW)


def parsed(leaf: SignedLeaf) -> x509.Certificate:
    return x509.load_der_x509_certificate(leaf.der)


def client(root: CertificateAuthority, life: timedelta = timedelta(hours=1)) -> SignedLeaf:
    return root.sign_client(new_key().public_key(), "agent", "node-1", life, NOW)


def test_a_root_may_sign_leaves_and_nothing_else(root: CertificateAuthority) -> None:
    certificate = x509.load_der_x509_certificate(root.certificate_der)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.digital_signature


def test_a_root_is_good_for_ten_years(root: CertificateAuthority) -> None:
    certificate = x509.load_der_x509_certificate(root.certificate_der)
    assert certificate.not_valid_after_utc == SECOND + timedelta(days=3650)


def test_a_root_reads_back_with_its_trust_domain(root: CertificateAuthority) -> None:
    again = CertificateAuthority.load(root.certificate_pem, root.key_pem)
    assert again.certificate_der == root.certificate_der
    assert again.trust_domain == "fleetwright.local"
    assert again.issued(parsed(client(root)))


def test_a_root_with_the_key_of_another_is_refused(root: CertificateAuthority) -> None:
    with pytest.raises(BrokenAuthority, match="not the one"):
        CertificateAuthority.load(root.certificate_pem, private_pem(new_key()))


def test_a_root_that_is_no_pem_is_refused(root: CertificateAuthority) -> None:
    with pytest.raises(BrokenAuthority, match="not readable"):
        CertificateAuthority.load(b"", root.key_pem)


def test_a_certificate_without_a_trust_domain_is_no_root_of_ours(root: CertificateAuthority) -> None:
    key = new_key()
    leaf = root.sign_server(key.public_key(), ["localhost"], timedelta(hours=1), NOW)
    with pytest.raises(BrokenAuthority, match="trust domain"):
        CertificateAuthority.load(leaf.pem, private_pem(key))


def test_a_client_has_exactly_one_uri_and_may_only_be_a_client(root: CertificateAuthority) -> None:
    certificate = parsed(client(root))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(names) == [x509.UniformResourceIdentifier("spiffe://fleetwright.local/agent/node-1")]
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_a_server_has_names_and_addresses_and_may_only_be_a_server(root: CertificateAuthority) -> None:
    hosts = ["localhost", "127.0.0.1", "::1"]
    leaf = root.sign_server(new_key().public_key(), hosts, timedelta(hours=1), NOW)
    names = parsed(leaf).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    usage = parsed(leaf).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [str(name.value) for name in names] == hosts
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]


def test_a_leaf_names_the_key_of_its_root(root: CertificateAuthority) -> None:
    certificate = x509.load_der_x509_certificate(root.certificate_der)
    subject = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    authority = parsed(client(root)).extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert authority.key_identifier == subject.digest


def test_a_leaf_begins_before_its_issue_and_lives_its_life_after_it(root: CertificateAuthority) -> None:
    root = CertificateAuthority.create("Older root", "fleetwright.local", NOW - timedelta(days=1))
    leaf = client(root, timedelta(minutes=2))
    assert leaf.not_before == SECOND - BACKDATE
    assert leaf.not_after == SECOND + timedelta(minutes=2)
    assert parsed(leaf).not_valid_after_utc == leaf.not_after


def test_a_leaf_is_neither_older_nor_younger_than_its_root(root: CertificateAuthority) -> None:
    certificate = x509.load_der_x509_certificate(root.certificate_der)
    leaf = client(root, timedelta(days=9999))
    assert leaf.not_before == certificate.not_valid_before_utc
    assert leaf.not_after == certificate.not_valid_after_utc


def test_a_root_that_has_not_begun_signs_nothing(root: CertificateAuthority) -> None:
    before = NOW - timedelta(days=2)
    with pytest.raises(Unavailable, match="an operator must set the clock"):
        root.sign_client(new_key().public_key(), "agent", "node-1", timedelta(hours=1), before)


def test_a_root_that_ended_signs_nothing(root: CertificateAuthority) -> None:
    late = NOW + timedelta(days=3650)
    key = new_key().public_key()
    with pytest.raises(Unavailable, match="root ended"):
        root.sign_client(key, "agent", "node-1", timedelta(hours=1), late)


def test_serial_numbers_are_random_positive_and_in_the_records_form(root: CertificateAuthority) -> None:
    leaves = [client(root) for _ in range(20)]
    assert len({leaf.serial for leaf in leaves}) == 20
    for leaf in leaves:
        assert int(leaf.serial, 16) == parsed(leaf).serial_number
        assert 0 < int(leaf.serial, 16) < 2**159


def test_a_leaf_of_another_root_is_not_issued_here(root: CertificateAuthority) -> None:
    other = CertificateAuthority.create("Test root", "fleetwright.local", NOW)
    assert not root.issued(parsed(client(other)))


def test_the_digest_of_a_root_is_the_sha_256_of_its_der(root: CertificateAuthority) -> None:
    digest = root_digest(root.certificate_der)
    assert urlsafe_b64decode(digest + "=") == hashlib.sha256(root.certificate_der).digest()
    assert root.digest == digest
    assert "=" not in digest


def test_a_root_key_is_written_in_pkcs8(root: CertificateAuthority) -> None:
    assert serialization.load_pem_private_key(root.key_pem, None) is not None
    assert root.key_pem.startswith(b"-----BEGIN PRIVATE KEY-----")
