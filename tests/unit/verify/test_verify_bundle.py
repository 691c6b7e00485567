"""Bundles: the whole chain offline, with every missing or wrong thing named."""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fleetwright.verify.bundle import CHECKS, verify_bundle
from fleetwright.verify.evidence import attestations_path
from fleetwright.verify.keys import Purpose
from fleetwright.verify.reports import Outcome, Report
from fleetwright.verify.verdicts import Decision
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.trust.bundles import export
from controlplane.trust.keys import SigningKey
from controlplane.trust.tuf.publishing import revoke
from controlplane.trust.tuf.roles import RepositoryError, RoleKeys
from controlplane.trust.tuf.rotation import add_signature, draft_root
from tests.unit.verify.evidence_world import (
    DAY,
    EXPIRIES,
    NOW,
    PACKAGE,
    PATH,
    Repository,
    attested,
    ceremony,
    empty_repository,
    repository,
    signed,
    verdict,
)

ROOT = ceremony().online.trusted_root


def exported(
    folder: Path, name: str = "bundle", made: Repository | None = None, lines: bytes | None = None
) -> Path:
    package = folder / "curl.deb"
    package.write_bytes(PACKAGE)
    return export(
        folder / name,
        target=PATH,
        package=package,
        attestations=attested().lines if lines is None else lines,
        keys=ceremony().online.key_document,
        state=(made or repository()).state,
    )


def failures(report: Report) -> dict[str, str]:
    assert tuple(check.name for check in report.checks) == CHECKS
    return {
        check.name: f"{'MISSING ' if check.outcome is Outcome.MISSING else ''}{check.detail}"
        for check in report.failures
    }


@pytest.mark.parametrize("name", ["bundle", "bundle.zip"])
def test_a_whole_bundle_holds(tmp_path: Path, name: str) -> None:
    report = verify_bundle(exported(tmp_path, name), ROOT, NOW)
    assert failures(report) == {}
    assert report.ok
    assert report["release"].detail.startswith(PATH)
    assert report.as_dict()["ok"] is True
    assert len(str(report).splitlines()) == len(CHECKS)


def test_the_same_bundle_twice_has_the_same_bytes(tmp_path: Path) -> None:
    one, two = exported(tmp_path, "one.zip"), exported(tmp_path, "two.zip")
    assert one.read_bytes() == two.read_bytes()


def test_nothing_is_overwritten_and_nothing_is_left_over(tmp_path: Path) -> None:
    exported(tmp_path)
    with pytest.raises(RepositoryError, match="exists already"):
        exported(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "curl.deb"}


def test_a_package_that_is_not_there_leaves_no_bundle(tmp_path: Path) -> None:
    for name in ("bundle", "bundle.zip"):
        with pytest.raises(RepositoryError, match="No such file"):
            export(
                tmp_path / name, target=PATH, package=tmp_path / "none", attestations=b"", keys=b"",
                state=repository().state,
            )  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_target_of_no_channel_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="of no channel"):
        export(
            tmp_path / "b",
            target="trust/x",
            package=tmp_path,
            attestations=b"",
            keys=b"",
            state=repository().state,
        )


def test_other_channels_are_left_out(tmp_path: Path) -> None:
    names = {path.name for path in (exported(tmp_path) / "metadata").iterdir()}
    assert names == {"1.root.json", "1.targets.json", "2.snapshot.json", "2.stable.json", "timestamp.json"}


def test_swapped_bytes_break_everything_that_is_about_the_package(tmp_path: Path) -> None:
    bundle = exported(tmp_path)
    (bundle / "package").write_bytes(PACKAGE.swapcase())
    found = failures(verify_bundle(bundle, ROOT, NOW))
    assert set(found) == {"release", "provenance", "sbom", "scan", "verdict"}
    assert "WrongTarget" in found["release"]


def test_a_longer_package_is_refused(tmp_path: Path) -> None:
    bundle = exported(tmp_path)
    (bundle / "package").write_bytes(PACKAGE + b"more")
    assert "longer than the" in failures(verify_bundle(bundle, ROOT, NOW))["release"]


@pytest.mark.parametrize(
    ("member", "check"),
    [
        ("bundle.json", "bundle"),
        ("package", "release"),
        ("attestations.jsonl", "attestations"),
        ("attestation-keys.json", "keys"),
    ],
)
def test_each_missing_member_is_named(tmp_path: Path, member: str, check: str) -> None:
    bundle = exported(tmp_path)
    (bundle / member).unlink()
    found = failures(verify_bundle(bundle, ROOT, NOW))
    assert found[check].startswith("MISSING")


@pytest.mark.parametrize("name", ["timestamp.json", "2.snapshot.json", "1.targets.json"])
def test_missing_metadata_is_named(tmp_path: Path, name: str) -> None:
    bundle = exported(tmp_path)
    (bundle / "metadata" / name).unlink()
    found = failures(verify_bundle(bundle, ROOT, NOW))
    assert found["tuf"].startswith("MISSING")
    assert f"NotFound: {name}" in found["tuf"]
    assert {"release", "keys", "attestations", "signature"} <= set(found)


def test_a_missing_channel_is_named_where_it_matters(tmp_path: Path) -> None:
    bundle = exported(tmp_path)
    (bundle / "metadata" / "2.stable.json").unlink()
    found = failures(verify_bundle(bundle, ROOT, NOW))
    assert "2.stable.json" in found["release"]
    assert "keys" not in found


def test_a_bundle_past_its_time_says_so_and_is_looked_at_further(tmp_path: Path) -> None:
    found = failures(verify_bundle(exported(tmp_path), ROOT, NOW + 3 * DAY))
    assert set(found) == {"tuf"}
    assert "Expired" in found["tuf"]


def test_a_verdict_past_its_end_is_wrong_though_the_metadata_holds(tmp_path: Path) -> None:
    made = repository()
    good = attested()
    payload = verdict((good.provenance, good.sbom, good.scan), expires=NOW)
    lines = replace(good, verdict=signed(payload, Purpose.VERDICT)).lines
    made.release({attestations_path(PATH): lines})
    found = failures(verify_bundle(exported(tmp_path, made=made, lines=lines), ROOT, NOW))
    assert set(found) == {"verdict"}


def test_attestations_that_were_replaced_by_older_ones_are_noticed(tmp_path: Path) -> None:
    made, good = repository(), attested()
    payload = verdict((good.provenance, good.sbom, good.scan), decision=Decision.FAIL, verified=NOW)
    failed = good.lines + signed(payload, Purpose.VERDICT) + b"\n"
    made.release({attestations_path(PATH): failed})
    found = failures(verify_bundle(exported(tmp_path, made=made, lines=good.lines), ROOT, NOW))
    assert set(found) == {"attestations"}
    assert "FAIL" in failures(verify_bundle(exported(tmp_path, "b2", made, failed), ROOT, NOW))["verdict"]


def test_a_package_that_was_taken_back_is_not_released(tmp_path: Path) -> None:
    made = repository()
    made.take(revoke(made.state, "stable", [PATH], ceremony().online.keys, NOW, EXPIRIES).state)
    assert "not any more" in failures(verify_bundle(exported(tmp_path, made=made), ROOT, NOW))["release"]


def test_a_package_without_released_attestations_is_not_complete(tmp_path: Path) -> None:
    made = empty_repository()
    made.release({PATH: PACKAGE})
    assert set(failures(verify_bundle(exported(tmp_path, made=made), ROOT, NOW))) == {"attestations"}


def test_keys_that_were_not_released_are_not_taken(tmp_path: Path) -> None:
    bundle = exported(tmp_path)
    (bundle / "attestation-keys.json").write_bytes(
        ceremony().online.key_document.replace(b'"version":1', b'"version":2')
    )
    found = failures(verify_bundle(bundle, ROOT, NOW))
    assert set(found) == {"keys", "signature", "provenance", "sbom", "scan", "verdict"}


def test_the_root_of_another_repository_trusts_nothing(tmp_path: Path) -> None:
    mallory = SigningKey.generate()
    root = draft_root(
        ROOT,
        {name: RoleKeys((mallory.public,)) for name in ("root", "targets", "snapshot", "timestamp")},
        NOW + DAY,
    )
    found = failures(verify_bundle(exported(tmp_path), add_signature(root, mallory), NOW))
    assert "TooFewSignatures" in found["tuf"]
    assert "release" in found


def test_another_target_in_the_manifest_does_not_help(tmp_path: Path) -> None:
    bundle = exported(tmp_path)
    manifest = (bundle / "bundle.json").read_bytes()
    (bundle / "bundle.json").write_bytes(manifest.replace(b"curl-8.1", b"curl-9.9"))
    found = failures(verify_bundle(bundle, ROOT, NOW))
    assert {"release", "attestations"} <= set(found)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b'{"_type": "x"}', b'{"_type": "fleetwright-bundle", "version": 2, "target": "a"}'],
)
def test_a_manifest_that_is_none_is_wrong(tmp_path: Path, content: bytes) -> None:
    bundle = exported(tmp_path)
    (bundle / "bundle.json").write_bytes(content)
    assert "bundle.json" in failures(verify_bundle(bundle, ROOT, NOW))["bundle"]


def test_links_in_a_bundle_are_not_followed(tmp_path: Path) -> None:
    bundle = exported(tmp_path)
    (bundle / "package").unlink()
    (bundle / "package").symlink_to(tmp_path / "curl.deb")
    assert failures(verify_bundle(bundle, ROOT, NOW))["release"].startswith("MISSING")


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04" + b"\0" * 60, b"no zip at all" * 99])
def test_a_file_that_is_no_zip_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bundle.zip").write_bytes(content)
    found = failures(verify_bundle(tmp_path / "bundle.zip", ROOT, NOW))
    assert "neither a folder nor a readable zip" in found["bundle"]
    assert set(found) == set(CHECKS)


def test_a_bundle_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    assert "no such file" in failures(verify_bundle(tmp_path / "none", ROOT, NOW))["bundle"]


def changed_zip(source: Path, change: Callable[[zipfile.ZipFile], None]) -> Path:
    target = source.with_name("changed.zip")
    shutil.copy(source, target)
    with zipfile.ZipFile(target, "a") as archive:
        change(archive)
    return target


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice_in_a_zip_is_refused(tmp_path: Path) -> None:
    bundle = changed_zip(exported(tmp_path, "b.zip"), lambda archive: archive.writestr("package", b"other"))
    assert "stands in it twice" in failures(verify_bundle(bundle, ROOT, NOW))["bundle"]


def test_a_zip_with_too_many_members_is_refused(tmp_path: Path) -> None:
    def fill(archive: zipfile.ZipFile) -> None:
        for number in range(5000):
            archive.writestr(f"x{number}", b"")

    bundle = changed_zip(exported(tmp_path, "b.zip"), fill)
    assert "at most 4096" in failures(verify_bundle(bundle, ROOT, NOW))["bundle"]


def test_a_package_that_unpacks_without_end_is_read_to_its_length_only(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(exported(tmp_path, "b.zip")) as source, zipfile.ZipFile(packed, "w") as bomb:
        for name in source.namelist():
            content = source.read(name) if name != "package" else b"\0" * 50_000_000
            bomb.writestr(name, content, zipfile.ZIP_DEFLATED)
    (tmp_path / "bomb.zip").write_bytes(packed.getvalue())
    assert "longer than the" in failures(verify_bundle(tmp_path / "bomb.zip", ROOT, NOW))["release"]


@settings(max_examples=80, deadline=None)
@given(at=st.integers(0, 10**9), noise=st.binary(min_size=1, max_size=40))
def test_a_damaged_zip_never_holds_and_never_raises(
    tmp_path_factory: pytest.TempPathFactory, at: int, noise: bytes
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    bundle = exported(folder, "b.zip")
    content = bytearray(bundle.read_bytes())
    place = at % len(content)
    content[place : place + len(noise)] = noise
    bundle.write_bytes(content)
    report = verify_bundle(bundle, ROOT, NOW)
    assert tuple(check.name for check in report.checks) == CHECKS
    if report.ok:  # the damage fell where nothing is read, such as a time in the zip's directory
        assert report["release"].detail.startswith(PATH)
