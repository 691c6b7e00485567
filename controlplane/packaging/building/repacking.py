"""Repacking a .deb that somebody else built, without touching what is in it.

Control and data stay byte for byte as they are: maintainer scripts, owners, set-id bits and links of the
original mean something to dpkg, and its builder tested them so. New are the headers around them, which then
hold no owner and no time of their own; gone are the signatures of others, which would not be ours; the
manifest comes last.
"""

from __future__ import annotations

import io
import lzma
import tarfile
import zlib
from pathlib import Path
from typing import BinaryIO, Final

from fleetwright.manifest import Manifest

from controlplane.packaging.building import ar
from controlplane.packaging.building.deb import append_manifest
from controlplane.packaging.building.errors import BuildFailed
from controlplane.packaging.building.layout import BINARY, deb_members
from controlplane.packaging.building.outputs import writing

SCRIPTS: Final = frozenset({"preinst", "postinst", "prerm", "postrm", "config"})
MAX_CONTROL: Final = 16 * 2**20
"""Bytes of control.tar, packed and unpacked."""
MAX_CONTROL_MEMBERS: Final = 4_096
MAX_LZMA_MEMORY: Final = 128 * 2**20


def repack_deb(source: Path, manifest: Manifest, output: Path, epoch: int) -> dict[str, str]:
    """Write the .deb at ``source`` with ``manifest`` in it, and return what is worth knowing of it.

    The details name what was kept, which scripts dpkg will run as root, and which members were dropped.
    Raises ``BuildFailed`` for what dpkg would not take either; then ``output`` is not there.
    """
    try:
        with source.open("rb") as stream:
            found = ar.members(stream)
            kept, dropped = _sorted_out(stream, found)
            details = _details(stream, kept, dropped)
            _write(stream, kept, manifest, output, epoch)
    except OSError as error:
        raise BuildFailed("UNREADABLE", source.name, f"cannot be read: {error.strerror}") from error
    return details


def _sorted_out(stream: BinaryIO, found: list[ar.Member]) -> tuple[list[ar.Member], list[str]]:
    kept, others = deb_members(found)
    version = ar.read_content(stream, kept[0], 64)
    if not version.startswith(b"2."):
        raise BuildFailed("NOT_A_DEB", BINARY, f"says {version[:16]!r}; only formats 2.x are known")
    return kept, [one.name for one in others]


def _details(stream: BinaryIO, kept: list[ar.Member], dropped: list[str]) -> dict[str, str]:
    details = {"repacked": "control and data are kept byte for byte", "data": kept[2].name}
    members = control_members(kept[1].name, ar.read_content(stream, kept[1], MAX_CONTROL))
    if members is None:
        details["maintainer_scripts"] = f"not known: this Python cannot read {kept[1].name}"
    else:
        details["control"] = ", ".join(members)
        details["maintainer_scripts"] = ", ".join(sorted(SCRIPTS & set(members))) or "none"
    if dropped:
        details["dropped"] = ", ".join(dropped)
    return details


def control_members(name: str, content: bytes) -> list[str] | None:
    """Return the names in a control.tar, sorted; None where its compression cannot be read here.

    Raises ``BuildFailed`` where it is damaged or too large.
    """
    if not name.endswith(("tar", ".gz", ".xz")):
        return None
    try:
        with tarfile.open(fileobj=io.BytesIO(_unpacked(name, content)), mode="r:") as tar:
            names: list[str] = []
            for info in tar:
                if len(names) == MAX_CONTROL_MEMBERS:
                    raise BuildFailed(
                        "TOO_MANY_MEMBERS", name, f"has more than {MAX_CONTROL_MEMBERS} entries"
                    )
                names.append(info.name.removeprefix("./"))
    except (
        tarfile.TarError,
        zlib.error,
        lzma.LZMAError,
        OSError,
        EOFError,
        ValueError,
        OverflowError,
    ) as error:
        raise BuildFailed("BAD_CONTROL", name, f"is damaged: {error}") from error
    return sorted(set(names) - {"", "."})


def _unpacked(name: str, content: bytes) -> bytes:
    if name.endswith(".gz"):
        gunzip = zlib.decompressobj(wbits=31)
        found, ended = gunzip.decompress(content, MAX_CONTROL + 1), gunzip.eof
    elif name.endswith(".xz"):
        unxz = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_LZMA_MEMORY)
        found, ended = unxz.decompress(content, MAX_CONTROL + 1), unxz.eof
    else:
        found, ended = content, True
    if len(found) > MAX_CONTROL:
        raise BuildFailed("TOO_LARGE", name, f"unpacks to more than {MAX_CONTROL} bytes")
    if not ended:
        raise BuildFailed("TRUNCATED", name, "ends within its compressed data")
    return found


def _write(stream: BinaryIO, kept: list[ar.Member], manifest: Manifest, output: Path, epoch: int) -> None:
    with writing(output) as target:
        target.write(ar.MAGIC)
        for one in kept:
            with ar.member(target, one.name, epoch) as part:
                ar.copy_member(stream, one, part)
        append_manifest(target, manifest, epoch)
