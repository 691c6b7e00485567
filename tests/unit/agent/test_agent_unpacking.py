"""Archives that are not what their manifest says, though whoever signed them did."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fleetwright.manifest import Manifest, read_manifest

from agent_sim.agent.installing.unpacking import check_space, unpack
from agent_sim.released.reasons import InstallError
from tests.support.install_world import archive

Members = list[tuple[tarfile.TarInfo, bytes]]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    path = tmp_path / "package.tar.gz"
    path.write_bytes(archive(tmp_path).content)
    return path


def members(package: Path) -> Members:
    with tarfile.open(package) as tar:
        return [(one, (tar.extractfile(one) or io.BytesIO()).read()) for one in tar.getmembers()]


def write(package: Path, found: Members) -> None:
    with tarfile.open(package, "w:gz") as tar:
        for info, content in found:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def named(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def missing(found: Members) -> Members:
    return found[:-1]


def another(found: Members) -> Members:
    return [*found, (named("files/another"), b"x")]


def outside(found: Members) -> Members:
    return [*found, (named("files/../../outside"), b"x")]


def twice(found: Members) -> Members:
    return [*found, found[-1]]


def changed(found: Members) -> Members:
    return [*found[:-1], (found[-1][0], bytes(len(found[-1][1])))]


def shorter(found: Members) -> Members:
    return [*found[:-1], (found[-1][0], found[-1][1][:-1])]


def hard_link(found: Members) -> Members:
    return [*found, (named("files/hard", tarfile.LNKTYPE, "/etc/passwd"), b"")]


def device(found: Members) -> Members:
    return [*found, (named("files/null", tarfile.CHRTYPE), b"")]


@pytest.mark.parametrize("change", [missing, another, outside, twice, changed, shorter, hard_link, device])
def test_what_the_manifest_does_not_list_is_not_unpacked(
    package: Path, tmp_path: Path, change: Callable[[Members], Members]
) -> None:
    manifest = read_manifest(package)
    write(package, change(members(package)))
    with pytest.raises(InstallError) as caught:
        unpack(package, manifest, tmp_path / "into")
    assert caught.value.code == "PACKAGE_DAMAGED"
    assert not (tmp_path.parent / "outside").exists()


def test_links_come_from_the_manifest_and_not_from_the_archive(package: Path, tmp_path: Path) -> None:
    manifest = read_manifest(package)
    write(package, [*members(package), (named("files/link", tarfile.SYMTYPE, "/etc"), b"")])
    unpack(package, manifest, tmp_path / "into")
    assert not any(path.is_symlink() for path in (tmp_path / "into").rglob("*"))


@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_an_archive_that_ends_too_early_is_damaged(package: Path, tmp_path: Path, share: float) -> None:
    manifest = read_manifest(package)
    content = package.read_bytes()
    package.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InstallError) as caught:
        unpack(package, manifest, tmp_path / "into")
    assert caught.value.code == "PACKAGE_DAMAGED"


def test_a_broken_stream_is_damaged(package: Path, tmp_path: Path) -> None:
    manifest = read_manifest(package)
    content = bytearray(package.read_bytes())
    content[len(content) // 2] ^= 0xFF
    package.write_bytes(content)
    with pytest.raises(InstallError, match="have it built again"):
        unpack(package, manifest, tmp_path / "into")


def test_a_stream_of_something_else_is_damaged(package: Path, tmp_path: Path) -> None:
    manifest = read_manifest(package)
    package.write_bytes(gzip.compress(b"x" * 5_000))
    with pytest.raises(InstallError) as caught:
        unpack(package, manifest, tmp_path / "into")
    assert caught.value.code == "PACKAGE_DAMAGED"


def test_a_package_without_room_on_the_disk_is_not_begun(package: Path, tmp_path: Path) -> None:
    manifest: Manifest = replace(read_manifest(package), disk_bytes=2**60)
    with pytest.raises(InstallError, match="free space on it") as caught:
        check_space(manifest, tmp_path)
    assert caught.value.code == "NO_SPACE"
