from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from controlplane.trust import files, setup
from controlplane.trust.layout import DataFolderError, Layout, ServerTrust, load

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
DOMAIN = "fleetwright.local"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "data"


def initialise(folder: Path, *hosts: str, trust_domain: str = DOMAIN) -> Path:
    return setup.init(folder, trust_domain, hosts, NOW)


def server_leaf(trust: ServerTrust) -> x509.Certificate:
    return x509.load_pem_x509_certificates(trust.agents_chain_pem)[0]


def server_names(trust: ServerTrust) -> list[str]:
    names = server_leaf(trust).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]


def everything(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_init_makes_two_roots_and_a_server_chain_of_each(folder: Path) -> None:
    initialise(folder)
    trust = load(folder)
    for root, chain in ((trust.agents, trust.agents_chain_pem), (trust.operators, trust.operators_chain_pem)):
        leaf, end = x509.load_pem_x509_certificates(chain)
        assert root.issued(leaf)
        assert end == x509.load_der_x509_certificate(root.certificate_der)
    assert trust.agents.digest != trust.operators.digest
    assert trust.trust_domain == DOMAIN


def test_init_makes_the_first_operator(folder: Path) -> None:
    identity = initialise(folder)
    certificate = x509.load_pem_x509_certificate((identity / "cert.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    trust = load(folder)
    assert identity == folder / "identities" / "operator-admin"
    assert [name.value for name in names] == [f"spiffe://{DOMAIN}/operator/admin"]
    assert trust.operators.issued(certificate)
    assert (identity / "ca.pem").read_bytes() == trust.operators.certificate_pem


def test_only_the_owner_reads_what_init_writes(folder: Path) -> None:
    initialise(folder)
    for path in folder.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_the_server_carries_the_machines_names_and_those_asked_for(folder: Path) -> None:
    initialise(folder, "fleet.example.com", "192.0.2.7", "localhost")
    names = server_names(load(folder))
    assert names[:3] == ["localhost", "127.0.0.1", "::1"]
    assert {"fleet.example.com", "192.0.2.7"} <= set(names)
    assert len(names) == len(set(names))


def test_init_never_replaces_what_is_there(folder: Path) -> None:
    initialise(folder)
    before = everything(folder)
    with pytest.raises(DataFolderError, match="exists already"):
        initialise(folder)
    assert everything(folder) == before


class Crash(BaseException):
    """The process ends here."""


def crashing(function: Callable[..., None], after: int) -> Callable[..., None]:
    calls: Iterator[int] = iter(range(after))

    def run(*arguments: object) -> None:
        if next(calls, None) is None:
            raise Crash
        function(*arguments)

    return run


@pytest.mark.parametrize("step", range(12))
def test_init_after_a_crash_at_any_step_ends_as_if_there_had_been_none(
    folder: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        writing, moving = crashing(files.write_file, step), crashing(files.move_folder, max(0, step - 10))
        patch.setattr(setup, "write_file", writing)
        patch.setattr(setup, "move_folder", moving)
        with pytest.raises(Crash):
            initialise(folder)
    initialise(folder, "late.example.com")
    assert "late.example.com" in server_names(load(folder))
    assert load(folder).operators.issued(
        x509.load_pem_x509_certificate((folder / "identities/operator-admin/cert.pem").read_bytes())
    )
    assert sorted(path.name for path in folder.iterdir()) == ["identities", "trust"]


def test_an_interrupted_init_is_not_finished_under_another_trust_domain(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(setup, "move_folder", crashing(files.move_folder, 1))
        with pytest.raises(Crash):
            initialise(folder)
    with pytest.raises(DataFolderError, match=r"was for trust domain 'fleetwright\.local'.*remove"):
        initialise(folder, trust_domain="another.example")


def test_identities_whose_roots_are_gone_are_not_overwritten(folder: Path) -> None:
    initialise(folder)
    Layout(folder).trust.rename(folder.parent / "elsewhere")
    with pytest.raises(DataFolderError, match="exists without"):
        initialise(folder)


@pytest.mark.parametrize("kind", ["operator", "integrator"])
def test_more_identities_are_issued_beside_the_first(folder: Path, kind: str) -> None:
    initialise(folder)
    identity = setup.issue_identity(folder, kind, "night-shift", NOW)
    certificate = x509.load_pem_x509_certificate((identity / "cert.pem").read_bytes())
    assert load(folder).operators.issued(certificate)
    assert sorted(path.name for path in identity.iterdir()) == ["ca.pem", "cert.pem", "key.pem"]


@pytest.mark.parametrize(("age", "text"), [(3651, "root ended"), (-400, "set the clock")])
def test_an_identity_is_not_issued_outside_the_time_of_its_root(folder: Path, age: int, text: str) -> None:
    initialise(folder)
    before = everything(folder)
    with pytest.raises(DataFolderError, match=text):
        setup.issue_identity(folder, "operator", "late", NOW + timedelta(days=age))
    assert everything(folder) == before


def test_an_identity_is_not_issued_over_another(folder: Path) -> None:
    initialise(folder)
    before = everything(folder)
    with pytest.raises(DataFolderError, match="exists already"):
        setup.issue_identity(folder, "operator", "admin", NOW)
    assert everything(folder) == before


@pytest.mark.parametrize(
    ("kind", "name"),
    [("agent", "node-1"), ("root", "x"), ("operator", ""), ("operator", "../../x"), ("operator", "Ann")],
)
def test_an_identity_that_breaks_a_rule_is_not_issued(folder: Path, kind: str, name: str) -> None:
    initialise(folder)
    before = everything(folder)
    with pytest.raises(DataFolderError, match="use"):
        setup.issue_identity(folder, kind, name, NOW)
    assert everything(folder) == before


@pytest.mark.parametrize(
    "host", ["", "with space", "host:7443", "a/b", "-a", "https://x", "a\n", "fade:7443", "fe80::1%eth0"]
)
def test_a_host_that_is_no_name_is_refused_before_anything_is_made(folder: Path, host: str) -> None:
    with pytest.raises(DataFolderError, match="host"):
        initialise(folder, host)
    assert not folder.exists()


@pytest.mark.parametrize("trust_domain", ["", "Upper.example", "a/b", "a b", "spiffe://x", "-a"])
def test_a_trust_domain_that_breaks_its_rule_is_refused(folder: Path, trust_domain: str) -> None:
    with pytest.raises(DataFolderError, match="trust domain"):
        initialise(folder, trust_domain=trust_domain)
    assert not folder.exists()


def test_a_folder_that_was_never_initialised_says_what_to_run(folder: Path) -> None:
    with pytest.raises(DataFolderError, match="fleetwright init"):
        load(folder)
    with pytest.raises(DataFolderError, match="fleetwright init"):
        setup.issue_identity(folder, "operator", "ann", NOW)
    with pytest.raises(DataFolderError, match="fleetwright init"):
        setup.refresh_server(folder, NOW)


@pytest.mark.parametrize("name", ["agents-root.key", "operators-root.pem", "server.key", "server-agents.pem"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    initialise(folder)
    (folder / "trust" / name).unlink()
    with pytest.raises(DataFolderError, match=name):
        load(folder)


def test_a_folder_that_is_a_file_is_refused_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataFolderError, match="file"):
        initialise(tmp_path / "file" / "data")


def test_hosts_are_added_without_a_change_of_the_key(folder: Path) -> None:
    initialise(folder, "one.example.com")
    key = load(folder).server_key_pem
    setup.reissue_server(folder, ["two.example.com"], NOW)
    trust = load(folder)
    assert {"one.example.com", "two.example.com"} <= set(server_names(trust))
    assert trust.server_key_pem == key


def test_the_server_certificate_is_made_again_before_it_ends_and_not_earlier(folder: Path) -> None:
    initialise(folder, "one.example.com")
    first = load(folder)
    assert not setup.refresh_server(folder, NOW + timedelta(days=360))
    assert load(folder).agents_chain_pem == first.agents_chain_pem
    assert setup.refresh_server(folder, NOW + timedelta(days=370))
    assert server_leaf(load(folder)).not_valid_after_utc > NOW + timedelta(days=700)
    assert server_names(load(folder)) == server_names(first)
