"""Go programs: the linker writes into each which modules it was built from.

Found in any executable of a package. The format is that of Go's ``debug/buildinfo`` and ``runtime/debug``: a
header of 32 bytes in a section of its own or at the beginning of the writable data, with two texts behind it
(since Go 1.18) or pointers to two texts: the toolchain's version, and lines of modules. The toolchain's
version is also that of the standard library, which advisories call ``stdlib``. Versions keep the "v" that Go
gives them, as package URLs do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from controlplane.packaging.records import ArtefactFacts, Component
from controlplane.packaging.sbom import executables
from controlplane.packaging.sbom.errors import BadMetadata
from controlplane.packaging.sbom.executables.image import Image
from controlplane.packaging.sbom.found import found
from controlplane.packaging.sbom.purls import Purl, make_purl
from controlplane.packaging.sbom.text import required, shown
from controlplane.packaging.sbom.trees import OpenFile, Tree

MAX_BUILD_INFORMATION = 4 * 1024 * 1024
"""Bytes of the text of modules; the largest programs have about 200 KB."""

MAX_MODULES = 20_000
"""Modules of one program; the largest have about 1,500."""

_SEARCHED = 16 * 1024 * 1024
_MAGIC = b"\xff Go buildinf:"
_HEADER = 32
_ALIGNED = 16
_FRAME = 16
_RELEASE = re.compile(r"go(?P<number>[0-9]+(?:\.[0-9]+)*(?:(?:rc|beta)[0-9]+)?)")


@dataclass(frozen=True, slots=True)
class Module:
    """A line of build information: "mod", "dep" or "=>"."""

    kind: str
    path: str
    version: str
    replaced_by: str = ""
    """Folder that took the place of the module, where it was replaced by one without a version."""


def wants(tree: Tree, path: str) -> bool:
    """Return whether ``path`` begins like an executable."""
    entry = tree.files.get(path)
    if entry is None or entry.size < 64:
        return False
    with tree.open(path) as file:
        return executables.is_executable(file.read_at(0, 4))


def components(tree: Tree, path: str, facts: ArtefactFacts) -> Iterable[Component]:
    """Return the modules of a Go program, and its standard library; nothing for another program.

    Raises:
        BadMetadata: the executable or its build information is damaged.
    """
    with tree.open(path) as file:
        for image in executables.images(file):
            toolchain, text = build_information(file, image)
            if toolchain:
                yield from _standard_library(path, toolchain)
                yield from (_component(path, module) for module in modules(path, text))


def build_information(file: OpenFile, image: Image) -> tuple[str, str]:
    """Return the toolchain's version and the text of modules; both empty where the program is not Go's."""
    data = file.read_at(image.data.offset, min(image.data.size, _SEARCHED))
    at = data.find(_MAGIC)
    while at >= 0 and (image.data.address + at) % _ALIGNED:
        at = data.find(_MAGIC, at + 1)
    header = data[at : at + _HEADER]
    if at < 0 or len(header) < _HEADER:
        return "", ""
    if header[15] & 2:
        end = image.data.offset + image.data.size
        toolchain, at = _inline(file, image.data.offset + at + _HEADER, end)
        text, _ = _inline(file, at, end)
    else:
        toolchain, text = (_pointed(file, image, header, number) for number in (0, 1))
    return _text(toolchain), _text(_unframed(text))


def modules(member: str, text: str) -> list[Module]:
    """Return the modules of build information, each replacement in the place of what it replaces.

    Raises:
        BadMetadata: a line has other columns than Go writes, or there are too many.
    """
    result: list[Module] = []
    for line in text.split("\n"):
        kind, *columns = line.split("\t")
        if kind in ("mod", "dep", "=>"):
            if len(columns) < 2 or (kind == "=>" and not result):
                raise BadMetadata(
                    member, f"its build information has the line {shown(line)!r}; it is damaged"
                )
            module = Module(kind, columns[0], columns[1])
            if kind == "=>":
                module = _replaced(result.pop(), module)
            result.append(module)
        if len(result) > MAX_MODULES:
            raise BadMetadata(member, f"it names more than {MAX_MODULES} modules; it is damaged")
    return result


def _replaced(module: Module, by: Module) -> Module:
    if by.version:
        return Module(module.kind, by.path, by.version)
    # A folder has no version. That of the module is kept: it is the nearest to what is in the program.
    return Module(module.kind, module.path, module.version, replaced_by=by.path)


def _inline(file: OpenFile, offset: int, end: int) -> tuple[bytes, int]:
    """Return the text at ``offset``, which begins with its length as a varint, and where it ends."""
    length, read = 0, file.read_at(offset, min(10, end - offset))
    for index, byte in enumerate(read):
        length |= (byte & 0x7F) << (7 * index)
        if not byte & 0x80:
            start = offset + index + 1
            data = file.read_at(start, min(length, MAX_BUILD_INFORMATION, end - start))
            return _bounded(file, data, length), start + length
    raise BadMetadata(file.path, "its build information ends within a length; it is truncated")


def _pointed(file: OpenFile, image: Image, header: bytes, number: int) -> bytes:
    size = header[14]
    order: Literal["big", "little"] = "big" if header[15] else "little"
    if size not in (4, 8):
        raise BadMetadata(file.path, f"its build information states pointers of {size} bytes; it is damaged")
    start = _ALIGNED + number * size
    address = int.from_bytes(header[start : start + size], order)
    descriptor = image.read(file, address, 2 * size)
    if len(descriptor) < 2 * size:
        return b""
    where = int.from_bytes(descriptor[:size], order)
    length = int.from_bytes(descriptor[size:], order)
    return _bounded(file, image.read(file, where, min(length, MAX_BUILD_INFORMATION)), length)


def _bounded(file: OpenFile, data: bytes, length: int) -> bytes:
    if length > MAX_BUILD_INFORMATION:
        raise BadMetadata(file.path, f"its build information states {length} bytes; it is damaged")
    if len(data) < length:
        raise BadMetadata(
            file.path, "its build information leads behind the end of the file; it is truncated"
        )
    return data


def _unframed(data: bytes) -> bytes:
    # The linker puts 16 bytes before and after the text, to find it again.
    return data[_FRAME:-_FRAME] if len(data) > 2 * _FRAME and data[-_FRAME - 1 : -_FRAME] == b"\n" else b""


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _standard_library(path: str, toolchain: str) -> Iterator[Component]:
    match = _RELEASE.match(toolchain)
    notes = [] if match else [f"built by the toolchain {shown(toolchain)!r}, which is no release"]
    number = match["number"] if match else ""
    yield found(make_purl("golang", "stdlib", number, member=path), files=[path], notes=notes)


def _component(path: str, module: Module) -> Component:
    version = "" if module.version == "(devel)" else module.version
    notes: Sequence[str] = ()
    if not version:
        notes = ["built from a working copy: it states no version"]
    elif module.replaced_by:
        notes = [f"its code was replaced by the folder {shown(module.replaced_by)!r}"]
    return found(module_purl(path, module.path, version), files=[path], notes=notes)


def module_purl(member: str, module: str, version: str) -> Purl:
    """Return the package URL of a Go module; raise ``BadMetadata`` where it is unusable."""
    namespace, _, name = required(member, "module path", module).rpartition("/")
    return make_purl("golang", name, version, namespace=namespace, member=member)
