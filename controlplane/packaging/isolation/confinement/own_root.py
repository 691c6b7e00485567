"""A root of the job's own: the interpreter, the system's libraries, the code that is called, and one folder.

All of it is read only but the scratch folder, in which nothing can be executed. There is no /proc: the
process namespace hides other processes, and nothing in there is needed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from controlplane.packaging.isolation.confinement import kernel

SCRATCH = "/scratch"
"""The scratch folder, as the job sees it."""
INPUTS, OUTPUTS, TEMPORARY = "in", "out", "tmp"

SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc/ld.so.cache", "/etc/ld.so.conf")
"""What programs and their libraries are made of; nothing of it is secret."""
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")


def enter(scratch: Path, readable: Iterable[Path]) -> None:
    """Make the root and go there, to the scratch folder; raises ``OSError``, and the old root stays then.

    Needs a mount namespace of its own, which it leaves changed in either case.
    """
    root = scratch / "root"
    kernel.mount("", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    root.mkdir(mode=0o755, exist_ok=True)
    kernel.mount(
        "fleetwright", str(root), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,nr_inodes=4k,mode=755"
    )
    for path in _outermost([*map(Path, SYSTEM), *readable]):
        _show(path, root)
    for device in DEVICES:
        _bind(Path(device), root)
    inside = root / SCRATCH.lstrip("/")
    inside.mkdir(mode=0o755)
    kernel.set_mount_attributes(str(root), kernel.MOUNT_ATTR_RDONLY | kernel.MOUNT_ATTR_NOSUID)
    _bind_scratch(scratch, inside)
    os.chdir(root)
    kernel.pivot_root_here()
    os.chdir(SCRATCH)


def _outermost(paths: Iterable[Path]) -> list[Path]:
    """Leave out what does not exist, and what another one holds already."""
    kept: list[Path] = []
    for path in sorted({path for path in paths if os.path.lexists(path)}, key=lambda path: len(path.parts)):
        # What is below a link (/lib) is shown with the link's target: nothing is made within a bound folder.
        if not any(path.is_relative_to(other) for other in kept):
            kept.append(path)
    return kept


def _show(path: Path, root: Path) -> None:
    if path == Path("/"):
        raise OSError(0, "the interpreter's folder is the root of the machine")
    if path.is_symlink():
        target = root / path.relative_to("/")
        _make_parents(target)
        target.symlink_to(path.readlink())
    else:
        _bind(path, root)


def _bind(path: Path, root: Path) -> None:
    target = root / path.relative_to("/")
    _make_parents(target)
    if stat.S_ISDIR(path.stat().st_mode):
        target.mkdir(mode=0o755, exist_ok=True)
    else:
        target.touch(mode=0o644)
    kernel.mount(str(path), str(target), None, kernel.MS_BIND | kernel.MS_REC)


def _make_parents(target: Path) -> None:
    for folder in reversed(target.parents):
        # Only what is missing: above it stand folders of the new root, and never a bound one.
        if not folder.exists():
            folder.mkdir(mode=0o755)


def _bind_scratch(scratch: Path, inside: Path) -> None:
    kernel.mount(str(scratch), str(inside), None, kernel.MS_BIND)
    denied = kernel.MOUNT_ATTR_NOSUID | kernel.MOUNT_ATTR_NODEV | kernel.MOUNT_ATTR_NOEXEC
    kernel.set_mount_attributes(str(inside), denied)
    inputs = str(inside / INPUTS)
    kernel.mount(inputs, inputs, None, kernel.MS_BIND)
    kernel.set_mount_attributes(inputs, denied | kernel.MOUNT_ATTR_RDONLY)
