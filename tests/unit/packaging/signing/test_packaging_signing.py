"""The signature of a .deb: made, verified by others, and refused when anything is not as it was."""

from __future__ import annotations

import shutil
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fleetwright.manifest import read_manifest

from controlplane.packaging.building import ar
from controlplane.packaging.building.outputs import digest
from controlplane.packaging.signing.gpgorigin import MEMBER, sign_deb
from controlplane.packaging.signing.keys import OriginKey, create_key, load_key
from controlplane.packaging.signing.states import SignatureState, SigningFailed, not_applicable
from controlplane.packaging.signing.verifying import debsig_policy, verify_deb
from tests.unit.packaging.building.trees import EPOCH, OPTIONS, built, request

USER = "Fleet <fleet@example.org>"
needs_gpgv = pytest.mark.skipif(shutil.which("gpgv") is None, reason="no gpgv is installed here")
needs_debsig = pytest.mark.skipif(
    shutil.which("debsig-verify") is None, reason="no debsig-verify is installed here"
)


def only(*names: str) -> Any:
    """Find programs, but only these."""
    return lambda name: shutil.which(name) if name in names else None


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> OriginKey:
    return create_key(tmp_path_factory.mktemp("key") / "origin.asc", USER)


@pytest.fixture
def unsigned(tmp_path: Path) -> Path:
    return Path(built(request(tmp_path, deb=OPTIONS), "deb")["path"])


@pytest.fixture
def signed(tmp_path: Path, unsigned: Path, key: OriginKey) -> Path:
    sign_deb(unsigned, tmp_path / "signed.deb", key, EPOCH)
    return tmp_path / "signed.deb"


def changed(deb: Path, name: str) -> Path:
    """Change one byte in the middle of a member."""
    with deb.open("r+b") as stream:
        one = next(found for found in ar.members(stream) if found.name == name)
        stream.seek(one.offset + one.size // 2)
        byte = stream.read(1)
        stream.seek(-1, 1)
        stream.write(bytes([byte[0] ^ 1]))
    return deb


def test_a_signature_names_final_and_unsigned_bytes(tmp_path: Path, unsigned: Path, key: OriginKey) -> None:
    found = sign_deb(unsigned, tmp_path / "signed.deb", key, EPOCH)
    assert (found.sha256, found.size) == digest(tmp_path / "signed.deb")
    assert found.unsigned_sha256 == digest(unsigned)[0]
    assert found.unsigned_sha256 != found.sha256
    assert found.fingerprint == key.fingerprint
    assert len(found.signing_key) == 40
    assert found.hash_algorithm == "SHA512"


def test_the_signature_is_the_last_member_and_all_else_is_as_it_was(signed: Path, unsigned: Path) -> None:
    with signed.open("rb") as stream:
        found = ar.members(stream)
    assert [one.name for one in found] == [
        "debian-binary",
        "control.tar.gz",
        "data.tar.gz",
        "_fleetwright",
        MEMBER,
    ]
    assert signed.read_bytes().startswith(unsigned.read_bytes())


def test_the_manifest_is_found_in_a_signed_deb(signed: Path, unsigned: Path) -> None:
    assert read_manifest(signed) == read_manifest(unsigned)


@needs_gpgv
def test_gpgv_finds_the_signature_good(signed: Path, key: OriginKey) -> None:
    found = verify_deb(signed, key.certificate, which=only("gpgv"))
    assert found.state is SignatureState.SIGNED_VERIFIED, found.reason
    assert found.tool.startswith("gpgv (GnuPG)")


@needs_debsig
def test_debsig_verify_finds_the_signature_good(signed: Path, key: OriginKey) -> None:
    found = verify_deb(signed, key.certificate, key.debsig_keyring, which=only("debsig-verify"))
    assert found.state is SignatureState.SIGNED_VERIFIED, found.reason
    assert "debsig" in found.tool.lower()


@needs_debsig
@pytest.mark.parametrize("member", ["debian-binary", "control.tar.gz", "data.tar.gz"])
def test_debsig_verify_refuses_a_member_that_changed(signed: Path, key: OriginKey, member: str) -> None:
    found = verify_deb(
        changed(signed, member), key.certificate, key.debsig_keyring, which=only("debsig-verify")
    )
    assert found.state is SignatureState.FAILED


@needs_gpgv
@pytest.mark.parametrize("member", ["debian-binary", "control.tar.gz", "data.tar.gz", MEMBER])
def test_gpgv_refuses_a_member_that_changed(signed: Path, key: OriginKey, member: str) -> None:
    found = verify_deb(changed(signed, member), key.certificate, which=only("gpgv"))
    assert found.state is SignatureState.FAILED
    assert found.reason


@needs_gpgv
def test_the_signature_of_another_key_is_refused(tmp_path: Path, signed: Path) -> None:
    other = create_key(tmp_path / "other.asc", USER)
    found = verify_deb(signed, other.certificate, which=only("gpgv"))
    assert found.state is SignatureState.FAILED
    assert "NO_PUBKEY" in found.reason or "ERRSIG" in found.reason


@needs_gpgv
def test_the_signature_of_another_package_is_refused(tmp_path: Path, signed: Path, key: OriginKey) -> None:
    other = Path(built(request(tmp_path / "other", {"bin/x": (b"x", 0o755)}, deb=OPTIONS), "deb")["path"])
    with signed.open("rb") as stream:
        signature = next(one for one in ar.members(stream) if one.name == MEMBER)
        content = ar.read_content(stream, signature, 10_000)
    with other.open("r+b") as stream:
        stream.seek(0, 2)
        with ar.member(stream, MEMBER, EPOCH) as part:
            part.write(content)
    assert verify_deb(other, key.certificate, which=only("gpgv")).state is SignatureState.FAILED


@needs_debsig
@needs_gpgv
def test_both_are_asked_where_both_are_here(signed: Path, key: OriginKey) -> None:
    found = verify_deb(signed, key.certificate, key.debsig_keyring)
    assert found.state is SignatureState.SIGNED_VERIFIED, found.reason
    assert "gpgv" in found.tool
    assert "Debsig" in found.tool


def test_without_another_implementation_nothing_is_called_verified(signed: Path, key: OriginKey) -> None:
    found = verify_deb(signed, key.certificate, which=only())
    assert found.state is SignatureState.SIGNED_UNVERIFIED
    assert "installed" in found.reason
    assert found.to_json()["state"] == "SIGNED_UNVERIFIED"


def test_a_verifier_that_cannot_run_has_verified_nothing(
    tmp_path: Path, signed: Path, key: OriginKey
) -> None:
    broken = tmp_path / "gpgv"
    broken.write_text("#!/bin/sh\nexit 0\n")
    broken.chmod(0o755)
    found = verify_deb(signed, key.certificate, which=lambda name: str(broken) if name == "gpgv" else None)
    assert found.state is SignatureState.FAILED


def test_a_verifier_has_a_folder_to_unpack_in(tmp_path: Path, signed: Path, key: OriginKey) -> None:
    looking = tmp_path / "gpgv"
    looking.write_text('#!/bin/sh\ntest -d "$TMPDIR" && exit 7\nexit 9\n')
    looking.chmod(0o755)
    found = verify_deb(signed, key.certificate, which=lambda name: str(looking) if name == "gpgv" else None)
    assert "ended with 7" in found.reason


def test_words_of_a_verifier_on_its_standard_error_count_for_nothing(
    tmp_path: Path, signed: Path, key: OriginKey
) -> None:
    liar = tmp_path / "gpgv"
    liar.write_text(f"#!/bin/sh\necho '[GNUPG:] VALIDSIG a b c d e f g 10 0 {key.fingerprint}' >&2\n")
    liar.chmod(0o755)
    found = verify_deb(signed, key.certificate, which=lambda name: str(liar) if name == "gpgv" else None)
    assert found.state is SignatureState.FAILED


def test_a_deb_without_a_signature_is_told(unsigned: Path, key: OriginKey) -> None:
    found = verify_deb(unsigned, key.certificate)
    assert (found.state, found.reason) == (SignatureState.FAILED, f"has no member {MEMBER}")


@pytest.mark.parametrize("content", [b"", b"!<arch>\n", b"garbage", b"!<arch>\n" + b"\n" * 60])
def test_garbage_is_never_verified(tmp_path: Path, key: OriginKey, content: bytes) -> None:
    (tmp_path / "x.deb").write_bytes(content)
    assert verify_deb(tmp_path / "x.deb", key.certificate).state is SignatureState.FAILED


def test_a_certificate_that_is_none_verifies_nothing(signed: Path) -> None:
    assert verify_deb(signed, "-----BEGIN NOTHING-----").state is SignatureState.FAILED


def test_what_has_no_signature_of_its_own_says_so() -> None:
    found = not_applicable("archive")
    assert found.state is SignatureState.NOT_APPLICABLE
    assert "DSSE" in found.reason


def test_a_deb_is_signed_once(tmp_path: Path, signed: Path, key: OriginKey) -> None:
    with pytest.raises(SigningFailed) as caught:
        sign_deb(signed, tmp_path / "twice.deb", key, EPOCH)
    assert caught.value.code == "ALREADY_SIGNED"
    assert not (tmp_path / "twice.deb").exists()


@pytest.mark.parametrize("content", [b"", b"!<arch>\n", b"PK\x03\x04"])
def test_what_is_no_deb_is_not_signed(tmp_path: Path, key: OriginKey, content: bytes) -> None:
    (tmp_path / "x.deb").write_bytes(content)
    with pytest.raises(SigningFailed):
        sign_deb(tmp_path / "x.deb", tmp_path / "signed.deb", key, EPOCH)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["x.deb"]


def test_a_key_is_a_file_of_its_owner_alone(tmp_path: Path) -> None:
    made = create_key(tmp_path / "origin.asc", USER)
    assert stat.S_IMODE((tmp_path / "origin.asc").stat().st_mode) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["origin.asc"]
    assert load_key(tmp_path / "origin.asc").fingerprint == made.fingerprint


def test_what_is_shown_of_a_key_holds_no_secret(key: OriginKey) -> None:
    assert "PUBLIC KEY" in key.certificate
    assert "PRIVATE" not in key.certificate
    assert repr(key) == f"OriginKey({key.fingerprint})"


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    create_key(tmp_path / "origin.asc", USER)
    before = (tmp_path / "origin.asc").read_bytes()
    with pytest.raises(SigningFailed) as caught:
        create_key(tmp_path / "origin.asc", USER)
    assert caught.value.code == "KEY_EXISTS"
    assert (tmp_path / "origin.asc").read_bytes() == before


def test_a_key_that_others_could_read_is_not_used(tmp_path: Path) -> None:
    create_key(tmp_path / "origin.asc", USER)
    (tmp_path / "origin.asc").chmod(0o640)
    with pytest.raises(SigningFailed, match="chmod 600"):
        load_key(tmp_path / "origin.asc")


def test_a_key_that_has_expired_is_not_used(tmp_path: Path) -> None:
    create_key(tmp_path / "origin.asc", USER, validity=timedelta(days=1))
    with pytest.raises(SigningFailed) as caught:
        load_key(tmp_path / "origin.asc", now=datetime.now(UTC) + timedelta(days=2))
    assert caught.value.code == "KEY_EXPIRED"


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"\x99\x01", b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n"]
)
def test_a_file_that_holds_no_key_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "origin.asc").write_bytes(content)
    (tmp_path / "origin.asc").chmod(0o600)
    with pytest.raises(SigningFailed) as caught:
        load_key(tmp_path / "origin.asc")
    assert caught.value.code == "KEY_UNUSABLE"


def test_a_certificate_in_place_of_a_key_cannot_sign(tmp_path: Path, key: OriginKey) -> None:
    (tmp_path / "origin.asc").write_text(key.certificate)
    (tmp_path / "origin.asc").chmod(0o600)
    with pytest.raises(SigningFailed) as caught:
        load_key(tmp_path / "origin.asc")
    assert caught.value.code == "KEY_UNUSABLE"


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(SigningFailed, match=r"none\.asc"):
        load_key(tmp_path / "none.asc")


@pytest.mark.parametrize("user", ["", "nobody", "A\nB <a@example.org>", "A <a>"])
def test_a_key_says_whose_it_is(tmp_path: Path, user: str) -> None:
    with pytest.raises(SigningFailed) as caught:
        create_key(tmp_path / "origin.asc", user)
    assert caught.value.code == "USER_ID"
    assert list(tmp_path.iterdir()) == []


def test_a_policy_for_debsig_verify_names_the_key() -> None:
    assert 'id="ABCD"' in debsig_policy("ABCD")
