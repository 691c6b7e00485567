"""Unpacking our archive into a fresh folder, each file held against the manifest.

The archive was verified as a whole before; this holds all the same that nothing but what the manifest lists
is written, nowhere but where its steps say, and no more of it than it says. Links are made from the
manifest, whose check has shown that none leads out of its tree.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import tarfile
import zlib
from collections import defaultdict
from pathlib import Path
from typing import IO, Final

from fleetwright.manifest import Manifest, PackagedFile, installed_files
from fleetwright.manifest.packed import ENTRY

from agent_sim.released.reasons import NO_SPACE, PACKAGE_DAMAGED, InstallError

_FILES: Final = "files/"
_CHUNK: Final = 256 * 1024
_SPARE_BYTES: Final = 16 << 20
"""Left free on the disk beside what the package takes."""


def check_space(manifest: Manifest, folder: Path) -> None:
    """Raise ``InstallError`` where the disk of ``folder`` has no room for the installed files."""
    free = shutil.disk_usage(folder).free
    if free < manifest.disk_bytes + _SPARE_BYTES:
        raise InstallError(
            NO_SPACE, f"{folder}: {free} bytes free, and {manifest.disk_bytes} are needed: free space on it"
        )


def unpack(package: Path, manifest: Manifest, into: Path) -> None:
    """Unpack the files that the manifest's steps copy into the new folder ``into``, durable when it returns.

    Raises ``InstallError`` for an archive that does not hold what its manifest says, and ``OSError``.
    """
    into.mkdir(mode=0o755)
    into.chmod(0o755)
    present = installed_files(manifest)
    try:
        _write_files(package, manifest, present, into)
    except (tarfile.TarError, zlib.error, EOFError, UnicodeError) as error:
        raise _damaged(f"not readable: {error}") from None
    for place, file in present.items():
        if file.link_target:
            _folder_of(into, place)
            os.symlink(file.link_target, into / place)
    flush_file_system(into)


def _write_files(package: Path, manifest: Manifest, present: dict[str, PackagedFile], into: Path) -> None:
    wanted = {file.path: file for file in manifest.files if not file.link_target}
    places: dict[str, list[str]] = defaultdict(list)
    for place, file in present.items():
        places[file.path].append(place)
    with tarfile.open(package, "r|gz") as archive:
        for member in archive:
            path = member.name.removeprefix(_FILES)
            if member.name == ENTRY or member.issym():
                continue
            listed = wanted.pop(path, None) if member.isreg() and member.name.startswith(_FILES) else None
            content = archive.extractfile(member) if listed is not None else None
            if listed is None or content is None or member.size != listed.size:
                raise _damaged(f"member {member.name[:200]!r} is not what the manifest lists")
            _write(content, listed, [into / place for place in places[path]], into)
    if wanted:
        raise _damaged(
            f"{len(wanted)} files of the manifest are missing, {next(iter(wanted))[:200]!r} among them"
        )


def _write(content: IO[bytes], file: PackagedFile, places: list[Path], into: Path) -> None:
    digest, size = hashlib.sha256(), 0
    first = places[0] if places else None
    output = _created(into, first, file.mode) if first is not None else None
    try:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            if output is not None:
                output.write(chunk)
    finally:
        if output is not None:
            output.close()
    if size != file.size or digest.hexdigest() != file.sha256:
        raise _damaged(f"the bytes of {file.path[:200]!r} are not those of its digest")
    for other in places[1:]:
        with _created(into, other, file.mode) as copy, places[0].open("rb") as source:
            shutil.copyfileobj(source, copy, _CHUNK)


def _created(into: Path, place: Path, mode: int) -> IO[bytes]:
    _folder_of(into, str(place.relative_to(into)))
    handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    os.fchmod(handle, mode)  # Whatever the umask of the agent.
    return os.fdopen(handle, "wb")


def _folder_of(into: Path, place: str) -> None:
    """Make the folders above ``place``, each with the mode that every folder of a package has."""
    folder = into
    for part in place.split("/")[:-1]:
        folder = folder / part
        if not folder.exists():
            folder.mkdir(mode=0o755)
            folder.chmod(0o755)


def flush_file_system(folder: Path) -> None:
    """Make all that was written to the file system of ``folder`` durable, with one call for many files."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # syncfs(2), which Python does not offer.
        if ctypes.CDLL(None, use_errno=True).syncfs(handle):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))
    finally:
        os.close(handle)


def _damaged(what: str) -> InstallError:
    return InstallError(PACKAGE_DAMAGED, f"the package was verified, but {what}: have it built again")
