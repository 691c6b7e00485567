from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509
from typer.testing import CliRunner

from certs import cli
from certs.authority import Root
from certs.bad import BAD_CERTIFICATES
from certs.requests import BAD_REQUESTS

run = CliRunner()


def fails(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr("sys.argv", ["fleetwright-certs", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code


def test_make_writes_both_roots_servers_and_clients_for_their_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "identities"
    result = run.invoke(cli.app, ["make", str(folder), "--agent", "a1", "--agent", "a2"])
    assert result.exit_code == 0
    names = ["agents-root", "operators-root", "server-agents", "server-admin"]
    names += ["agent-a1", "agent-a2", "operator-admin", "integrator-integration"]
    files = {f"{name}.{suffix}" for name in names for suffix in ("key", "pem")}
    assert {path.name for path in folder.iterdir()} == files
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_output_says_what_it_is_for(tmp_path: Path) -> None:
    assert "development and tests only" in run.invoke(cli.app, ["make", str(tmp_path)]).output


def test_hosts_are_added_to_the_local_ones(tmp_path: Path) -> None:
    run.invoke(cli.app, ["make", str(tmp_path), "--host", "fleet.example.test"])
    leaf = x509.load_pem_x509_certificates((tmp_path / "server-admin.pem").read_bytes())[0]
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "fleet.example.test"]


def test_nothing_is_replaced_unless_forced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["make", str(tmp_path)]
    run.invoke(cli.app, arguments)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert fails(monkeypatch, *arguments, "--agent", "new") == 2
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert run.invoke(cli.app, [*arguments, "--force"]).exit_code == 0
    assert (tmp_path / "agents-root.pem").read_bytes() != before["agents-root.pem"]


def test_bad_ones_are_signed_by_the_root_that_make_left(tmp_path: Path) -> None:
    run.invoke(cli.app, ["make", str(tmp_path)])
    run.invoke(cli.app, ["bad", str(tmp_path), "expired", "--role", "operator", "--name", "mallory"])
    root = Root.from_pem(
        (tmp_path / "operators-root.key").read_bytes(), (tmp_path / "operators-root.pem").read_bytes()
    )
    leaf = x509.load_pem_x509_certificate((tmp_path / "bad-expired.pem").read_bytes())
    leaf.verify_directly_issued_by(root.certificate)


def test_all_makes_one_of_each_kind_and_a_root_where_there_is_none(tmp_path: Path) -> None:
    result = run.invoke(cli.app, ["bad", str(tmp_path), "--all"])
    assert result.exit_code == 0
    made = {path.stem.removeprefix("bad-") for path in tmp_path.glob("bad-*.key")}
    assert made == {*BAD_CERTIFICATES, *BAD_REQUESTS}
    assert (tmp_path / "agents-root.pem").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rotten"], "kind 'rotten'"),
        ([], "KIND"),
        (["expired", "--all"], "KIND"),
        (["expired", "--role", "robot"], "role 'robot'"),
        (["expired", "--name", "A"], "agent 'A'"),
    ],
)
def test_a_wrong_word_is_named_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    assert fails(monkeypatch, "bad", str(tmp_path), *arguments) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert errors.count("\n") == 1


def test_a_folder_that_is_a_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("")
    assert fails(monkeypatch, "make", str(taken)) == 1
    assert str(taken) in capsys.readouterr().err


@pytest.mark.parametrize("command", ["make", "bad"])
def test_help_shows_examples(command: str) -> None:
    assert f"fleetwright-certs {command} /tmp/identities" in run.invoke(cli.app, [command, "--help"]).output
