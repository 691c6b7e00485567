"""Writing a .deb (deb(5)) of our own making: binary, control and data, and the manifest behind them.

The files lie below ``/opt/<package>``, commands are links in ``/usr/bin``. There are no maintainer scripts.
gzip packs both tars: every dpkg reads it, and its memory does not grow with the data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final

from fleetwright.manifest import (
    CommandDetect,
    Detect,
    DpkgDetect,
    DpkgInstall,
    DpkgRemove,
    Link,
    Manifest,
    ManifestError,
    PackagedFile,
    Rollback,
    dump,
    installed_files,
)
from fleetwright.manifest.packed import DEB_MEMBER

from controlplane.packaging.building import ar
from controlplane.packaging.building.control import DebOptions, control_text, debian_name, debian_version
from controlplane.packaging.building.errors import BuildFailed
from controlplane.packaging.building.layout import BINARY
from controlplane.packaging.building.outputs import writing
from controlplane.packaging.building.payload import EMPTY_SHA256, PayloadFile, copy, disk_bytes
from controlplane.packaging.building.platforms import debian_architecture
from controlplane.packaging.building.tarballs import Tarball, of_gzip

FORMAT: Final = b"2.0\n"
PREFIX: Final = "opt"
COMMANDS: Final = "usr/bin"


def build_deb(
    payload: Sequence[PayloadFile], manifest: Manifest, options: DebOptions, output: Path, epoch: int
) -> Manifest:
    """Write a .deb that installs what ``manifest`` installs, and return its own manifest, which is in it.

    Raises ``BuildFailed``; then ``output`` is not there.
    """
    placed = _placed(payload, manifest)
    own = _manifest(manifest, placed)
    text = _control(own, options, placed)
    conffiles = _conffiles(own, options)
    sums = _md5sums(placed)
    with writing(output) as stream:
        stream.write(ar.MAGIC)
        _member(stream, BINARY, FORMAT, epoch)
        with ar.member(stream, "control.tar.gz", epoch) as part, of_gzip(part, epoch) as control:
            control.folder(".")
            control.text("./control", text)
            if conffiles:
                control.text("./conffiles", conffiles)
            control.text("./md5sums", sums)
        with ar.member(stream, "data.tar.gz", epoch) as part, of_gzip(part, epoch) as data:
            _data(data, placed)
        append_manifest(stream, own, epoch)
    return own


def append_manifest(stream: BinaryIO, manifest: Manifest, epoch: int) -> None:
    """Write the member that holds the manifest; raises ``BuildFailed``."""
    try:
        _member(stream, DEB_MEMBER, dump(manifest), epoch)
    except ManifestError as error:
        raise BuildFailed("MANIFEST", error.field, error.problem) from error


def _member(stream: BinaryIO, name: str, content: bytes, epoch: int) -> None:
    with ar.member(stream, name, epoch) as part:
        part.write(content)


def _placed(payload: Sequence[PayloadFile], manifest: Manifest) -> list[PayloadFile]:
    """Return every file by its path from the system's root, sorted, the links of commands among them."""
    sources = {one.file.path: one.source for one in payload}
    package = debian_name(manifest.name)
    try:
        installed = installed_files(manifest)
    except ManifestError as error:
        raise BuildFailed("MANIFEST", error.field, error.problem) from error
    found = [
        PayloadFile(replace(file, path=f"{PREFIX}/{package}/{path}"), sources[file.path])
        for path, file in installed.items()
    ]
    for step in manifest.install:
        if isinstance(step, Link):
            target = f"../../{PREFIX}/{package}/{step.target}"
            link = PackagedFile(f"{COMMANDS}/{step.name}", EMPTY_SHA256, 0, 0o755, target)
            found.append(PayloadFile(link, Path()))
    return sorted(found, key=lambda one: one.file.path)


def _manifest(manifest: Manifest, placed: Sequence[PayloadFile]) -> Manifest:
    files = tuple(one.file for one in placed)
    package, version = debian_name(manifest.name), debian_version(manifest.version)
    return replace(
        manifest,
        type="deb",
        install=(DpkgInstall(package),),
        uninstall=(DpkgRemove(package),),
        detect=_detect(manifest.detect, package, version),
        rollback=Rollback("reinstall", max(1, manifest.rollback.keep_versions)),
        disk_bytes=disk_bytes(files),
        files=files,
    )


def _detect(detect: Detect, package: str, version: str) -> Detect:
    if isinstance(detect, CommandDetect):
        command, *arguments = detect.arguments
        return replace(detect, arguments=(f"{PREFIX}/{package}/{command}", *arguments))
    return DpkgDetect(package, version)


def _control(manifest: Manifest, options: DebOptions, placed: Sequence[PayloadFile]) -> bytes:
    # As dpkg-gencontrol counts: each file in whole KiB, one for each folder and link.
    size = sum(-(-one.file.size // 1_024) or 1 for one in placed) + len(_folders(placed))
    package, version = debian_name(manifest.name), debian_version(manifest.version)
    return control_text(package, version, debian_architecture(manifest.platforms), options, size)


def _conffiles(manifest: Manifest, options: DebOptions) -> bytes:
    start = f"{PREFIX}/{debian_name(manifest.name)}/"
    regular = {file.path for file in manifest.files if not file.link_target}
    for path in options.conffiles:
        if start + path not in regular:
            raise BuildFailed("CONTROL", "conffiles", f"{path[:64]!r} is no file that the package installs")
    return "".join(f"/{start}{path}\n" for path in sorted(set(options.conffiles))).encode()


def _md5sums(placed: Iterable[PayloadFile]) -> bytes:
    lines = []
    for one in placed:
        if not one.file.link_target:
            # dpkg --verify compares these; they guard against accidents, the signature against people.
            digest = hashlib.md5(usedforsecurity=False)
            copy(one, digest.update)
            lines.append(f"{digest.hexdigest()}  {one.file.path}\n")
    return "".join(lines).encode()


def _folders(placed: Iterable[PayloadFile]) -> set[str]:
    found = {"."}
    for one in placed:
        parts = one.file.path.split("/")[:-1]
        found |= {"/".join(parts[: length + 1]) for length in range(len(parts))}
    return found


def _data(data: Tarball, placed: Sequence[PayloadFile]) -> None:
    entries: Mapping[str, PayloadFile | None] = {
        **dict.fromkeys(_folders(placed)),
        **{one.file.path: one for one in placed},
    }
    # By parts and not by characters, so that a folder stands before all that lies in it.
    for path in sorted(entries, key=lambda path: [] if path == "." else path.split("/")):
        one = entries[path]
        if one is None:
            data.folder("." if path == "." else f"./{path}")
        else:
            data.payload(f"./{path}", one)
