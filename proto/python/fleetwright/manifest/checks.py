"""What the parts of a manifest must hold together, and what follows from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from fleetwright.manifest.fields import ManifestError, check_links, unique_paths
from fleetwright.manifest.shapes import (
    CommandDetect,
    CopyTree,
    Detect,
    DpkgDetect,
    DpkgInstall,
    DpkgRemove,
    FileDetect,
    Link,
    Manifest,
    PackagedFile,
)

MAX_COPIES: Final = 16
"""Steps that copy, each of which may copy all files."""


def check(manifest: Manifest) -> None:
    """Hold the parts of a manifest against each other; raises ``ManifestError``."""
    paths = [file.path for file in manifest.files]
    if paths != sorted(paths):
        raise ManifestError("files", "are not sorted by their paths")
    unique_paths(paths, "files")
    _check_dpkg(manifest)
    if manifest.type != "deb":
        # dpkg makes the links of a .deb as they are, absolute ones too.
        check_links({file.path: file.link_target for file in manifest.files if file.link_target}, "files")
    present = installed_files(manifest)
    if manifest.type != "deb":
        # Again where they are installed: copying a part of the tree takes a link nearer to the root.
        check_links({path: file.link_target for path, file in present.items() if file.link_target}, "install")
    for number, step in enumerate(manifest.install):
        if isinstance(step, Link) and step.target not in present:
            raise ManifestError(f"install[{number}].target", f"{step.target!r} is installed by no step")
    names = [step.name for step in manifest.install if isinstance(step, Link)]
    if len(names) != len(set(names)):
        raise ManifestError("install", "two links have the same name")
    _check_detect(manifest.detect, present)


def _check_dpkg(manifest: Manifest) -> None:
    deb = manifest.type == "deb"
    steps: Iterable[object] = (*manifest.install, *manifest.uninstall, manifest.detect)
    by_dpkg = [isinstance(step, DpkgInstall | DpkgRemove | DpkgDetect) for step in steps]
    if any(by_dpkg) and not deb:
        raise ManifestError(
            "install", f"has a step for dpkg, which a package of type {manifest.type!r} is none for"
        )
    if not deb and not manifest.files:
        raise ManifestError("files", "are missing")
    if deb and [type(step) for step in manifest.install] != [DpkgInstall]:
        raise ManifestError("install", "of a package of type 'deb' is one step, dpkg_install")
    if deb and [type(step) for step in manifest.uninstall] != [DpkgRemove]:
        raise ManifestError("uninstall", "of a package of type 'deb' is one step, dpkg_remove")


def _check_detect(detect: Detect, present: Mapping[str, PackagedFile]) -> None:
    if isinstance(detect, FileDetect):
        file = present.get(detect.path)
        if file is None:
            raise ManifestError("detect.path", f"{detect.path!r} is installed by no step")
        if file.link_target or file.sha256 != detect.sha256:
            raise ManifestError("detect.sha256", f"is not the digest of {detect.path!r} in this package")
    if isinstance(detect, CommandDetect) and detect.arguments[0] not in present:
        raise ManifestError("detect.arguments[0]", f"{detect.arguments[0]!r} is installed by no step")


def installed_files(manifest: Manifest) -> dict[str, PackagedFile]:
    """Return what lies where after the ``copy_tree`` steps, by prefix path.

    What dpkg installs is not in it, except for a package of type "deb", whose paths count from the system's
    root. Raises ``ManifestError`` where a step copies nothing, or two steps put different files in one
    place.
    """
    if manifest.type == "deb":
        return {file.path: file for file in manifest.files}
    steps = [(number, step) for number, step in enumerate(manifest.install) if isinstance(step, CopyTree)]
    if len(steps) > MAX_COPIES:
        raise ManifestError("install", f"has {len(steps)} steps that copy; at most {MAX_COPIES} are possible")
    found: dict[str, PackagedFile] = {}
    for number, step in steps:
        _copy(manifest.files, step, f"install[{number}]", found)
    unique_paths(list(found), "install")
    return found


def _copy(files: Sequence[PackagedFile], step: CopyTree, name: str, found: dict[str, PackagedFile]) -> None:
    copied = list(copies(files, step))
    if not copied:
        raise ManifestError(f"{name}.source", f"no file of the package lies below {step.source!r}")
    for path, file in copied:
        there = found.setdefault(path, file)
        if (there.sha256, there.link_target) != (file.sha256, file.link_target):
            raise ManifestError(f"{name}.destination", f"another file is copied to {path!r} already")


def copies(files: Sequence[PackagedFile], step: CopyTree) -> Iterator[tuple[str, PackagedFile]]:
    """Yield each file that a step copies, by its prefix path."""
    start = "" if step.source == "." else f"{step.source}/"
    into = "" if step.destination == "." else f"{step.destination}/"
    for file in files:
        if file.path.startswith(start):
            yield into + file.path[len(start) :], file


def matches(pattern: str, output: str) -> bool:
    """Whether an output is what a pattern asks for, spaces at its ends left aside.

    "*" stands for any text; an empty pattern allows all. Takes time in proportion to the output, whatever the
    pattern, which no regular expression promises.
    """
    if not pattern:
        return True
    first, *rest = pattern.split("*")
    text = output.strip()
    if not rest:
        return text == pattern
    *middle, last = rest
    if not text.startswith(first) or not text[len(first) :].endswith(last):
        return False
    place, end = len(first), len(text) - len(last)
    for part in middle:
        found = text.find(part, place, end)
        if found < 0:
            return False
        place = found + len(part)
    return place <= end
