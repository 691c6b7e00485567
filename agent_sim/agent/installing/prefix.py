"""Packages in a folder of this host: versions side by side, one of them current, its commands linked.

    versions/<name>/<version>_<digest>/    the files of one version
    current/<name>                         link to the version in use: replaced in one step
    bin/<command>                          link through ``current`` to a command of the version in use

Every change can be made again from the operation's record, so that what a kill left half done is finished or
taken back.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from fleetwright.manifest import Link, Manifest, RemoveTree, Unlink

from agent_sim.agent.installing.ledger import flush_folder
from agent_sim.agent.installing.records import PREFIX, Operation, Version
from agent_sim.agent.installing.unpacking import check_space, unpack
from agent_sim.released.reasons import COMMAND_TAKEN, PREFIX_UNUSABLE, InstallError

_LONGEST_NAME: Final = 100
"""Characters of a folder's name; file systems take 255 bytes, and a digest is still to come."""


class Prefix:
    """The folder that packages are installed in."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def check(self, uid: int) -> None:
        """Make the folders where they are missing. Raises ``InstallError`` where others could change them."""
        try:
            for folder in (self.root, self.root / "versions", self.root / "current", self.root / "bin"):
                if not folder.exists():
                    folder.mkdir(mode=0o755, parents=True)
                    folder.chmod(0o755)
                status = folder.lstat()
                if not stat.S_ISDIR(status.st_mode) or status.st_uid not in (0, uid):
                    raise _unusable(folder, f"not a folder of uid {uid}")
                if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                    raise _unusable(folder, f"others can write it; run `chmod go-w {folder}`")
        except OSError as error:
            raise _unusable(self.root, error.strerror or type(error).__name__) from None

    def plan(self, manifest: Manifest, sha256: str) -> tuple[Version, dict[str, str]]:
        """Return the version as it will lie here, and where its commands lead now ("" where nowhere).

        Raises ``InstallError`` where there is no room, or a command is another's.
        """
        check_space(manifest, self.root)
        ours = f"../current/{_safe(manifest.name)}/"
        links = {}
        for step in manifest.install:
            if isinstance(step, Link):
                links[step.name] = self._led(step.name, ours)
        return Version(manifest.name, manifest.version, sha256, PREFIX, self._free(manifest, sha256)), links

    def stage(self, package: Path, manifest: Manifest, version: Version) -> None:
        """Unpack beside the place. Raises ``InstallError`` and ``OSError``."""
        staged = self._staged(version)
        _remove_tree(staged)
        staged.parent.mkdir(mode=0o755, exist_ok=True)
        staged.parent.chmod(0o755)
        unpack(package, manifest, staged)

    def switch(self, version: Version, manifest: Manifest) -> None:
        """Make a staged version the current one; harmless where it is. Raises ``OSError``."""
        place = self.root / version.folder
        if not place.exists():
            os.rename(self._staged(version), place)
            flush_folder(place.parent)
        name = _safe(version.name)
        _relink(self.root / "current" / name, f"../{version.folder}")
        for step in manifest.install:
            if isinstance(step, Link):
                _relink(self.root / "bin" / step.name, f"../current/{name}/{step.target}")

    def restore(self, operation: Operation) -> None:
        """Bring the former version back, or nothing where there was none; harmless where it is done."""
        version, before = operation.target, operation.before
        current = self.root / "current" / _safe(version.name)
        for name, led in operation.links.items():
            if led:
                _relink(self.root / "bin" / name, led)
            else:
                self._unlink(name, version.name)
        if before is not None and before.folder:
            _relink(current, f"../{before.folder}")
        else:
            _remove_link(current)
        self.discard(version)

    def discard(self, version: Version) -> None:
        """Remove the files of a version that is not current, staged or in its place."""
        _remove_tree(self._staged(version))
        _remove_tree(self.root / version.folder)

    def uninstall(self, version: Version, manifest: Manifest, keeping: Collection[str] = ()) -> None:
        """Remove a version by its own manifest, but for the commands in ``keeping``. Raises ``OSError``."""
        place = self.root / version.folder
        for step in manifest.uninstall:
            if isinstance(step, Unlink) and step.name not in keeping:
                self._unlink(step.name, version.name)
            elif isinstance(step, RemoveTree):
                _remove_tree(place if step.path == "." else place / step.path)
        with suppress(OSError):
            place.rmdir()

    def remove_commands(self, name: str, commands: Collection[str]) -> None:
        """Remove commands that lead to the package ``name``."""
        for command in commands:
            self._unlink(command, name)

    def leave(self, name: str) -> None:
        """Let no version of a package be current."""
        _remove_link(self.root / "current" / _safe(name))

    def current(self, version: Version) -> Path:
        """Return where the files of a version are looked for when it has to be the current one."""
        return self.root / "current" / _safe(version.name)

    def _staged(self, version: Version) -> Path:
        place = self.root / version.folder
        return place.with_name(f".{place.name}.new")

    def _free(self, manifest: Manifest, sha256: str) -> str:
        """Return a folder that is not there: the same version again is installed beside the broken one."""
        parent = Path("versions") / _safe(manifest.name)
        base, number = f"{_safe(manifest.version)}_{sha256[:12]}", 1
        name = base
        while (self.root / parent / name).exists():
            number += 1
            name = f"{base}.{number}"
        return str(parent / name)

    def _led(self, command: str, ours: str) -> str:
        path = self.root / "bin" / command
        if not os.path.lexists(path):
            return ""
        target = os.readlink(path) if path.is_symlink() else ""
        if not target.startswith(ours):
            raise InstallError(
                COMMAND_TAKEN,
                f"{path}: another package's or nobody's command: remove it, or give another name",
            )
        return target

    def _unlink(self, command: str, name: str) -> None:
        path = self.root / "bin" / command
        if path.is_symlink() and os.readlink(path).startswith(f"../current/{_safe(name)}/"):
            _remove_link(path)


def commands_of(manifest: Manifest) -> frozenset[str]:
    """Return the names of the commands that a manifest links."""
    return frozenset(step.name for step in manifest.install if isinstance(step, Link))


def _safe(name: str) -> str:
    """Return a name as one part of a path, short enough for every file system."""
    quoted = quote(name, safe="@+~!")
    if len(quoted) <= _LONGEST_NAME:
        return quoted
    return f"{quoted[: _LONGEST_NAME - 20]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def _relink(path: Path, target: str) -> None:
    """Let a link lead to ``target``, in one step for whoever looks."""
    if path.is_symlink() and os.readlink(path) == target:
        return
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    os.symlink(target, fresh)
    os.replace(fresh, path)
    flush_folder(path.parent)


def _remove_link(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
        flush_folder(path.parent)


def _remove_tree(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def _unusable(folder: Path, what: str) -> InstallError:
    return InstallError(PREFIX_UNUSABLE, f"policy install.prefix: {folder}: {what}")
