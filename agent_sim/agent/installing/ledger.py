"""The agent's own record of installations, on disk before anything that it says is done.

    installed.json    every package with its current version and those that are kept
    operation.json    the operation that is under way, or the last one with how it ended
    manifests/        the manifest of each version, under the digest of its package
    kept/             package files that are kept to be installed again, under their digest
    downloads/        package files that are on their way

A file is replaced as a whole and flushed, so that a power cut leaves the one before or the one after.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from fleetwright.manifest import Manifest, ManifestError, dump, parse

from agent_sim.agent.installing.records import Installed, Operation, Version

_VERSION: Final = 1
_FORGOTTEN_AFTER: Final = timedelta(days=7)
"""How long a download that nobody goes on with is kept."""


class LedgerError(Exception):
    """The record cannot be read; the text names the file and the remedy."""


def installed_in(folder: Path) -> list[Version]:
    """Return what is installed, by its name; only reads, and so may look while the agent runs.

    Raises ``LedgerError``.
    """
    if not folder.is_dir():
        return []
    entries = Ledger(folder, only_read=True).installed().values()
    return sorted((entry.current for entry in entries), key=lambda version: version.key)


class Ledger:
    """The record in one folder, which only this agent uses."""

    def __init__(self, folder: Path, *, only_read: bool = False) -> None:
        """Make the folder where it is missing, unless it is only read. Raises ``OSError``."""
        self._folder = folder
        if only_read:
            return
        for path in (folder, folder / "manifests", folder / "kept", folder / "downloads"):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def metadata(self) -> Path:
        """Folder of the metadata's client."""
        return self._folder / "tuf"

    def partial(self, sha256: str) -> Path:
        """File of a package that is on its way."""
        return self._folder / "downloads" / sha256

    def kept(self, sha256: str) -> Path:
        """File of a package that is kept to be installed again."""
        return self._folder / "kept" / f"{sha256}.deb"

    def operation(self) -> Operation | None:
        """Return the operation that is under way or ended last. Raises ``LedgerError``."""
        document = self._read("operation.json")
        try:
            return Operation.from_json(document["operation"]) if document else None
        except (KeyError, TypeError, ValueError) as error:
            raise self._broken("operation.json", error) from None

    def write(self, operation: Operation) -> Operation:
        """Keep how far an operation is, and return it. Raises ``OSError``."""
        self._write("operation.json", {"operation": operation.to_json()})
        return operation

    def installed(self) -> dict[str, Installed]:
        """Return every package by its key. Raises ``LedgerError``."""
        document = self._read("installed.json")
        try:
            packages = document["packages"] if document else {}
            return {key: Installed.from_json(one) for key, one in packages.items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise self._broken("installed.json", error) from None

    def set_installed(self, key: str, entry: Installed | None) -> None:
        """Keep what is installed of one package; None for nothing. Raises ``OSError``, ``LedgerError``."""
        packages = self.installed()
        packages.pop(key, None)
        if entry is not None:
            packages[key] = entry
        self._write("installed.json", {"packages": {name: asdict(one) for name, one in packages.items()}})

    def keep_manifest(self, sha256: str, manifest: Manifest) -> None:
        """Keep a manifest: what was installed by it is one day removed by it. Raises ``OSError``."""
        _replace(self._folder / "manifests" / f"{sha256}.json", dump(manifest))

    def manifest(self, sha256: str) -> Manifest:
        """Return a manifest that was kept. Raises ``LedgerError``."""
        path = self._folder / "manifests" / f"{sha256}.json"
        try:
            return parse(path.read_bytes())
        except (OSError, ManifestError) as error:
            raise self._broken(f"manifests/{path.name}", error) from None

    def keep_package(self, sha256: str, package: Path) -> None:
        """Keep a package file to install it again. Raises ``OSError``."""
        kept = self.kept(sha256)
        if not kept.exists():
            fresh = kept.with_suffix(".new")
            shutil.copyfile(package, fresh)
            with fresh.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(fresh, kept)
            flush_folder(kept.parent)

    def tidy(self) -> None:
        """Remove manifests and package files of versions that are gone, and old downloads."""
        wanted = {version.sha256 for version in self._known()}
        for folder in ("manifests", "kept"):
            for path in (self._folder / folder).iterdir():
                if path.name.partition(".")[0] not in wanted:
                    _remove(path)
        for path in (self._folder / "downloads").iterdir():
            with suppress(OSError):
                if path.stat().st_mtime < time.time() - _FORGOTTEN_AFTER.total_seconds():
                    _remove(path)

    def _known(self) -> Iterable[Version]:
        for entry in self.installed().values():
            yield entry.current
            yield from entry.earlier
        operation = self.operation()
        if operation is not None and operation.ended is None:
            yield operation.target
            if operation.before is not None:
                yield operation.before

    def _read(self, name: str) -> Mapping[str, Any]:
        try:
            document = json.loads((self._folder / name).read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            raise self._broken(name, error) from None
        if not isinstance(document, dict) or document.get("version") != _VERSION:
            raise self._broken(name, ValueError(f"not a record of version {_VERSION}"))
        return document

    def _write(self, name: str, document: Mapping[str, Any]) -> None:
        _replace(self._folder / name, json.dumps({"version": _VERSION, **document}).encode())

    def _broken(self, name: str, error: Exception) -> LedgerError:
        what = error.strerror if isinstance(error, OSError) else error
        return LedgerError(
            f"{self._folder / name}: {what}: put it back from a backup, or move it away: what it told of is "
            "then installed anew, and what is there is not removed"
        )


def flush_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises ``OSError``."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
    flush_folder(path.parent)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
