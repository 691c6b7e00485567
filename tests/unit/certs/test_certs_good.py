from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.verification import PolicyBuilder, Store

from certs import requests
from certs.authority import Root, issue_client, issue_server, make_root, spiffe_id

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(scope="module")
def root() -> Root:
    return make_root("Test agents", now=NOW)


def test_an_agent_has_exactly_one_uri_san_and_no_other_name(root: Root) -> None:
    certificate = issue_client(root, "agent", "agent-7", now=NOW, trust_domain="example.test").certificate
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier("spiffe://example.test/agent/agent-7")]


@pytest.mark.parametrize("role", ["agent", "operator", "integrator"])
def test_a_client_verifies_against_its_root(root: Root, role: str) -> None:
    leaf = issue_client(root, role, "someone", now=NOW).certificate
    verifier = PolicyBuilder().store(Store([root.certificate])).time(NOW).build_client_verifier()
    assert verifier.verify(leaf, []).chain == [leaf, root.certificate]


def test_a_server_verifies_by_each_of_its_names_and_sends_its_root(root: Root) -> None:
    server = issue_server(root, ["fleet.example.test", "127.0.0.1"], now=NOW)
    leaf, sent_root = x509.load_pem_x509_certificates(server.chain_pem)
    verifier = PolicyBuilder().store(Store([root.certificate])).time(NOW)
    verifier.build_server_verifier(x509.DNSName("fleet.example.test")).verify(leaf, [])
    assert sent_root == root.certificate
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]


def test_a_server_without_a_name_is_refused(root: Root) -> None:
    with pytest.raises(ValueError, match="at least one name"):
        issue_server(root, [], now=NOW)


def test_the_key_is_that_of_the_certificate_and_on_p256(root: Root) -> None:
    identity = issue_client(root, "agent", "agent-7", now=NOW)
    key = load_pem_private_key(identity.key_pem, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert key.public_key() == identity.certificate.public_key()


def test_the_life_is_counted_from_the_given_clock(root: Root) -> None:
    life = timedelta(minutes=2)
    certificate = issue_client(root, "agent", "agent-7", now=NOW, life=life).certificate
    assert certificate.not_valid_after_utc == NOW + life


def test_a_root_read_back_signs_what_the_first_one_trusts(root: Root) -> None:
    again = Root.from_pem(root.key_pem, root.pem)
    leaf = issue_client(again, "agent", "agent-7", now=NOW).certificate
    leaf.verify_directly_issued_by(root.certificate)


def test_a_root_with_the_key_of_another_is_refused(root: Root) -> None:
    other = make_root("Other", now=NOW)
    with pytest.raises(ValueError, match="not that of the certificate"):
        Root.from_pem(other.key_pem, root.pem)


@pytest.mark.parametrize(
    ("role", "name", "trust_domain", "said"),
    [
        ("robot", "a", "fleetwright.local", "role 'robot'"),
        ("agent", "Agent", "fleetwright.local", "agent 'Agent'"),
        ("agent", "-a", "fleetwright.local", "agent '-a'"),
        ("agent", "a" * 64, "fleetwright.local", "1 to 63"),
        ("agent", "a", "Fleet/Wright", "trust domain 'Fleet/Wright'"),
    ],
)
def test_a_bad_name_is_refused_by_field_and_value(role: str, name: str, trust_domain: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        spiffe_id(role, name, trust_domain)


def test_no_key_is_printed_with_its_identity(root: Root) -> None:
    identity = issue_client(root, "agent", "agent-7", now=NOW)
    assert repr(identity) == "Identity('CN=agent-7')"
    assert "PRIVATE" not in repr(requests.good("agent-7"))


def test_a_good_request_is_signed_and_names_only_the_agent() -> None:
    request = x509.load_der_x509_csr(requests.good("agent-7").der)
    assert request.is_signature_valid
    assert request.subject.rfc4514_string() == "CN=agent-7"
    assert len(request.extensions) == 0


def test_a_request_may_carry_the_agents_own_spiffe_id() -> None:
    request = x509.load_der_x509_csr(requests.good_with_spiffe_id("agent-7").der)
    [extension] = request.extensions
    assert isinstance(extension.value, x509.SubjectAlternativeName)
    assert list(extension.value) == [x509.UniformResourceIdentifier(spiffe_id("agent", "agent-7"))]
