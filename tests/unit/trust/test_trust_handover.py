"""The folder of a new identity, made where its owner is; and when a certificate holds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controlplane.identity import csr
from controlplane.trust import setup
from controlplane.trust.certificates import validity
from controlplane.trust.handover import UnsignedIdentity
from controlplane.trust.layout import DataFolderError

SPIFFE_ID = "spiffe://fleetwright.local/operator/ada"


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def modes(folder: Path) -> set[int]:
    return {path.stat().st_mode & 0o777 for path in folder.iterdir()}


@pytest.mark.parametrize("target", [".", "/", ".."])
def test_a_folder_that_can_have_none_beside_it_exists_already(target: str) -> None:
    with pytest.raises(DataFolderError, match="exists already"):
        UnsignedIdentity(Path(target), "ada")


def test_a_finished_identity_is_open_to_its_owner_alone(tmp_path: Path) -> None:
    with UnsignedIdentity(tmp_path / "deep" / "ada", "ada") as unsigned:
        folder = unsigned.finish(b"certificate", b"root")
    assert names(tmp_path) == {"deep", "deep/ada", "deep/ada/key.pem", "deep/ada/cert.pem", "deep/ada/ca.pem"}
    assert (modes(folder), folder.stat().st_mode & 0o777) == ({0o600}, 0o700)


def test_its_request_is_one_that_the_server_takes(tmp_path: Path) -> None:
    with UnsignedIdentity(tmp_path / "ada", "ada") as unsigned:
        csr.check(unsigned.request, "ada", SPIFFE_ID)


def test_nothing_is_left_of_one_that_was_not_finished(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), UnsignedIdentity(tmp_path / "ada", "ada"):
        raise ZeroDivisionError
    assert names(tmp_path) == set()


def test_what_a_killed_run_left_is_no_obstacle(tmp_path: Path) -> None:
    UnsignedIdentity(tmp_path / "ada", "ada")
    assert names(tmp_path) == {".ada.new", ".ada.new/key.pem"}
    with UnsignedIdentity(tmp_path / "ada", "ada") as unsigned:
        unsigned.finish(b"certificate", b"root")
    assert (tmp_path / "ada" / "cert.pem").read_bytes() == b"certificate"
    assert not (tmp_path / ".ada.new").exists()


def test_what_exists_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "ada").write_text("precious")
    with pytest.raises(DataFolderError, match="exists already"):
        UnsignedIdentity(tmp_path / "ada", "ada")
    assert names(tmp_path) == {"ada"}


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataFolderError, match=str(tmp_path / "file")):
        UnsignedIdentity(tmp_path / "file" / "ada", "ada")


def test_a_certificate_says_when_it_holds(tmp_path: Path) -> None:
    now = datetime(2026, 11, 23, 8, tzinfo=UTC)
    identity = setup.init(tmp_path / "data", "fleetwright.local", [], now)
    held = validity(identity / "cert.pem")
    assert held.begin <= now < held.end == now + timedelta(days=365)


def test_what_is_no_certificate_is_named(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("x")
    with pytest.raises(DataFolderError, match=r"cert\.pem: not a certificate"):
        validity(tmp_path / "cert.pem")
