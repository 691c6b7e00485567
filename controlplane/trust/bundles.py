"""Writing bundles: a package with all the evidence for it, for machines that know no server.

``fleetwright.verify.bundle`` says what is in one, and verifies it.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fleetwright.verify.bundle import ATTESTATIONS, KEYS, MANIFEST, METADATA, PACKAGE, TYPE, VERSION
from fleetwright.verify.documents import canonical

from controlplane.trust.files import make_folder, move_folder, sync_folder, write_file
from controlplane.trust.tuf.roles import RepositoryError
from controlplane.trust.tuf.state import RepositoryState

ZIP: Final = ".zip"
_CHUNK: Final = 1024 * 1024
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip knows: the same bundle twice gives the same bytes."""


def export(
    destination: Path,
    *,
    target: str,
    package: Path,
    attestations: bytes,
    keys: bytes,
    state: RepositoryState,
) -> Path:
    """Write the bundle of a released target, whole or not at all, and return where it is.

    ``destination`` becomes a zip where its name ends with ``.zip``, else a folder; it may not exist.
    ``attestations`` are DSSE envelopes, one on each line, and ``keys`` the document of the keys for them,
    both as they were released. Raises ``RepositoryError``.
    """
    if destination.exists():
        raise RepositoryError(f"{destination}: exists already: name another place for the bundle")
    members = {
        MANIFEST: canonical({"_type": TYPE, "version": VERSION, "target": target}),
        ATTESTATIONS: attestations,
        KEYS: keys,
        **{f"{METADATA}{name}": content for name, content in _metadata(state, target).items()},
    }
    fresh = destination.absolute().with_name(f".{destination.name}.new")
    try:
        _remove(fresh)
        if destination.suffix == ZIP:
            _write_zip(fresh, members, package)
            fresh.replace(destination)
            sync_folder(destination.absolute().parent)
        else:
            _write_folder(fresh, members, package)
            move_folder(fresh, destination.absolute())
    except OSError as error:
        where = error.filename or destination
        raise RepositoryError(f"{where}: {error.strerror}: name a place that this user may write") from error
    finally:
        _remove(fresh)
    return destination


def _metadata(state: RepositoryState, target: str) -> dict[str, bytes]:
    """Return the files that lead from any trusted root to the target; of the channels, its own only."""
    channel = target.partition("/")[0]
    if channel not in state.channels:
        raise RepositoryError(f"target {target!r}: of no channel: there are {', '.join(state.channels)}")
    others = tuple(f".{name}.json" for name in state.channels if name != channel)
    return {
        name: content for name, content in state.files().items() if not others or not name.endswith(others)
    }


def _write_folder(folder: Path, members: Mapping[str, bytes], package: Path) -> None:
    make_folder(folder)
    for name, content in members.items():
        make_folder((folder / name).parent)
        write_file(folder / name, content)
    shutil.copyfile(package, folder / PACKAGE)


def _write_zip(path: Path, members: Mapping[str, bytes], package: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(members):
            archive.writestr(_member(name), members[name])
        with package.open("rb") as source, archive.open(_member(PACKAGE), "w", force_zip64=True) as member:
            shutil.copyfileobj(source, member, _CHUNK)


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, _EPOCH)
    # A package is compressed already; its attestations are text.
    member.compress_type = zipfile.ZIP_STORED if name == PACKAGE else zipfile.ZIP_DEFLATED
    member.external_attr = 0o644 << 16
    return member


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
