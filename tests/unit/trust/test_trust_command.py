"""``fleetwright trust init``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from controlplane.cli import trust
from controlplane.cli.failures import Guarded
from controlplane.packaging.signing.keys import load_key as load_deb_key
from controlplane.trust.keys import load_key
from controlplane.trust.layout import DEB_ORIGIN
from controlplane.trust.tuf.ceremony import load_online


def run(*words: object) -> Result:
    root = typer.Typer(cls=Guarded)
    root.add_typer(trust.app, name="trust")
    return CliRunner().invoke(root, ["trust", "init", *(str(word) for word in words)])


def test_it_makes_both_folders_and_says_what_to_move_where(tmp_path: Path) -> None:
    ended = run("--offline", tmp_path / "usb", "--online", tmp_path / "server")
    assert ended.exit_code == 0, ended.output
    assert "2 of 3 sign for the role root" in ended.stdout
    assert "Move each key to another person or safe" in ended.stdout
    assert "They are not encrypted" in ended.stdout
    assert set(load_online(tmp_path / "server").state.channels) == {"stable", "beta"}
    assert (tmp_path / "usb" / "root.json").is_file()


def test_the_folder_for_the_server_is_in_its_data_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert run("--offline", tmp_path / "usb", "--data-dir", tmp_path / "data").exit_code == 0
    load_online(tmp_path / "data" / "release-trust")


def test_programs_get_json(tmp_path: Path) -> None:
    ended = run(
        "--offline", tmp_path / "usb", "--online", tmp_path / "server", "--channel", "main", "--root", "1/1",
        "--targets", "2/2", "-o", "json",
    )  # fmt: skip
    made = json.loads(ended.stdout)
    assert made["channels"] == ["main"]
    assert made["thresholds"] == {"root": "1 of 1", "targets": "2 of 2"}
    assert len(made["offlineKeys"]) == 3
    assert made["trustedRoot"] == str(tmp_path / "usb" / "root.json")


def test_it_overwrites_nothing(tmp_path: Path) -> None:
    run("--offline", tmp_path / "usb", "--online", tmp_path / "server")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    ended = run("--offline", tmp_path / "usb", "--online", tmp_path / "server")
    assert ended.exit_code == 1
    assert "exists already" in ended.stderr
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_offline_keys_are_encrypted_with_a_passphrase_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text("correct horse battery\nmore\n")
    words = ["--offline", tmp_path / "usb", "--online", tmp_path / "server"]
    ended = run(*words, "--passphrase-file", tmp_path / "passphrase")
    assert ended.exit_code == 0, ended.output
    assert "not encrypted" not in ended.stdout
    load_key(tmp_path / "usb" / "targets-1.pem", "correct horse battery")


@pytest.mark.parametrize(
    ("words", "status", "why"),
    [
        (["--root", "4/3"], 2, "role root: 4 of 3 keys"),
        (["--root", "two"], 2, "write N/KEYS"),
        (["--targets", "0/3"], 2, "role targets: 0 of 3"),
        (["--channel", "UP"], 1, "channel 'UP'"),
        (["--encrypt", "--passphrase-file", "x"], 2, "give one of them"),
        (["--passphrase-file", "/none"], 1, "No such file"),
    ],
)
def test_bad_words_are_refused_before_anything_is_made(
    tmp_path: Path, words: list[str], status: int, why: str
) -> None:
    ended = run("--offline", tmp_path / "usb", "--online", tmp_path / "server", *words)
    assert ended.exit_code == status
    assert why in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_signs_debs_is_made_where_it_is_asked_for(tmp_path: Path) -> None:
    ended = run(
        "--offline", tmp_path / "usb", "--online", tmp_path / "server", "--deb-signer", "A <a@b.example>"
    )
    assert ended.exit_code == 0, ended.output
    key = load_deb_key(tmp_path / "server" / DEB_ORIGIN)
    assert key.fingerprint in ended.stdout


def test_a_name_of_no_signer_is_refused_by_its_option(tmp_path: Path) -> None:
    ended = run("--offline", tmp_path / "usb", "--online", tmp_path / "server", "--deb-signer", "A")
    assert ended.exit_code == 1
    assert "--deb-signer" in ended.output
