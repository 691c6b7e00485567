"""``fleetwright trust`` where keys are: no server is asked, and what cannot be is refused in words."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from controlplane.cli import trust
from controlplane.cli.failures import Guarded
from controlplane.trust.keys import SigningKey, load_key
from controlplane.trust.tuf.drafting import RoleChange, longer_attesters, next_root, read_public_key, tell
from controlplane.trust.tuf.roles import RepositoryError
from controlplane.trust.tuf.rotation import draft_root
from tests.unit.verify.evidence_world import NOW, ceremony

ROOT = ceremony().online.trusted_root
SECRET = "a passphrase of some length"  # of a test


def run(*words: object) -> Result:
    app = typer.Typer(cls=Guarded)
    app.add_typer(trust.app, name="trust")
    return CliRunner().invoke(app, ["trust", *(str(word) for word in words)])


@pytest.fixture
def draft(tmp_path: Path) -> Path:
    path = tmp_path / "root-2.json"
    path.write_bytes(draft_root(ROOT, {}, NOW + timedelta(days=400)))
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "root-1.pem"
    ceremony().root_keys[0].write(path)
    return path


def test_a_key_is_made_with_its_public_half(tmp_path: Path) -> None:
    ended = run("key", tmp_path / "new.pem", "-o", "json")
    assert ended.exit_code == 0, ended.output
    made = load_key(tmp_path / "new.pem")
    assert json.loads(ended.stdout)["keyId"] == made.key_id
    assert read_public_key(tmp_path / "new.pem.pub") == made.public
    assert (tmp_path / "new.pem").stat().st_mode & 0o777 == 0o600


def test_a_key_can_be_encrypted(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    assert run("key", tmp_path / "new.pem", "--passphrase-file", tmp_path / "secret").exit_code == 0
    load_key(tmp_path / "new.pem", SECRET)


def test_a_draft_is_signed_by_one_holder_after_the_other(draft: Path, key: Path, tmp_path: Path) -> None:
    second = tmp_path / "root-2.pem"
    ceremony().root_keys[1].write(second, SECRET)
    (tmp_path / "secret").write_text(SECRET)
    assert run("sign", draft, "--key", key, "--yes").exit_code == 0
    again = draft.read_bytes()
    assert run("sign", draft, "--key", key, "--yes").exit_code == 0
    assert draft.read_bytes() == again
    ended = run("sign", draft, "--key", second, "--passphrase-file", tmp_path / "secret", "--yes")
    assert ended.exit_code == 0, ended.output
    assert set(tell(draft.read_bytes()).signed_by) == {one.key_id for one in ceremony().root_keys[:2]}


def test_a_signature_that_does_not_hold_is_not_told_as_one(draft: Path, key: Path) -> None:
    run("sign", draft, "--key", key, "--yes")
    document = json.loads(draft.read_bytes())
    document["signed"]["version"] = 3
    told = tell(json.dumps(document).encode())
    assert (told.signed_by, told.unknown_signers) == ((), ())


def test_a_key_that_the_root_does_not_list_is_told_as_such(draft: Path, tmp_path: Path) -> None:
    run("key", tmp_path / "mine.pem")
    ended = run("sign", draft, "--key", tmp_path / "mine.pem", "--yes")
    mine = load_key(tmp_path / "mine.pem")
    assert f"signed by keys that it does not list: {mine.key_id[:16]}" in ended.stdout


def test_nothing_is_signed_unread(draft: Path, key: Path) -> None:
    before = draft.read_bytes()
    ended = run("sign", draft, "--key", key)
    assert ended.exit_code != 0
    assert "fleetwright trust tell" in ended.output
    assert draft.read_bytes() == before


def test_what_cannot_be_is_refused_in_words(draft: Path, key: Path, tmp_path: Path) -> None:
    junk, out, stamp = tmp_path / "junk.json", tmp_path / "out.json", tmp_path / "timestamp.json"
    junk.write_text("{}")
    stamp.write_bytes(ceremony().online.state.timestamp)
    for words, said in (
        (("tell", junk), "no TUF metadata"),
        (("tell", tmp_path / "none"), "none"),
        (("tell", stamp), "only root and targets"),
        (("sign", junk, "--key", key, "--yes"), "no TUF metadata"),
        (("sign", draft, "--key", tmp_path / "none.pem", "--yes"), "none.pem"),
        (("install", junk), "no TUF metadata"),
        (("install", draft, draft), "a second document of the role root"),
        (("install", draft, "-o", "name"), "-o name"),
        (("key", tmp_path / "key.txt"), ".pem"),
        (("key", key), "exists already"),
        (("draft-root", "--out", out, "--for", "1h"), "from 1 to 3650 days"),
        (("draft-root", "--out", out, "--threshold", "root=x"), "write how many keys"),
        (("draft-root", "--out", out, "--add", f"root={junk}"), "no public key"),
        (("draft-root", "--out", out, "--add", "root"), "write NAME=VALUE"),
        (("draft-targets", "--out", out, "--channel", "x=/nowhere.pub"), "/nowhere.pub"),
    ):
        ended = run(*words)
        assert ended.exit_code != 0, words
        assert said in " ".join(ended.output.split()), (words, ended.output)


def test_a_role_keeps_a_sound_number_of_keys() -> None:
    fresh = SigningKey.generate()
    first = ceremony().root_keys[0]
    with pytest.raises(RepositoryError, match="signs for it already"):
        next_root(ROOT, {"root": RoleChange(add=(first.public,))}, NOW)
    gone = tuple(key.key_id for key in ceremony().root_keys[:2])
    with pytest.raises(RepositoryError, match="add keys, drop fewer, or set another threshold"):
        next_root(ROOT, {"root": RoleChange(drop=gone)}, NOW)
    document = next_root(ROOT, {"root": RoleChange((fresh.public,), gone[:1])}, NOW)
    assert tell(document).roles["root"][1][-1] == fresh.key_id


def test_attesters_are_never_shortened() -> None:
    with pytest.raises(RepositoryError, match="take a later end"):
        longer_attesters(ceremony().online.key_document, NOW)
    with pytest.raises(RepositoryError, match="attestation-keys"):
        longer_attesters(b"{}", NOW)
