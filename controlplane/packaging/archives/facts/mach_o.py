"""Mach-O, thin and universal, by Apple's ``mach-o/loader.h`` and ``mach-o/fat.h``."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from controlplane.packaging.archives.errors import BadArtefact, Code
from controlplane.packaging.archives.facts.executable import Executable, check_within, malformed
from controlplane.packaging.archives.formats import FAT_HEAD, FAT_HEAD_64, FAT_SLICES
from controlplane.packaging.archives.window import Window

THIN: Mapping[bytes, tuple[str, int]] = {
    b"\xce\xfa\xed\xfe": ("<", 28),
    b"\xcf\xfa\xed\xfe": ("<", 32),
    b"\xfe\xed\xfa\xce": (">", 28),
    b"\xfe\xed\xfa\xcf": (">", 32),
}
"""By magic: the byte order, and the bytes of the header."""
MACHINES: Mapping[int, str] = {
    7: "i386",
    12: "arm",
    18: "ppc",
    0x01000007: "x86_64",
    0x0100000C: "arm64",
    0x0200000C: "arm64_32",
    0x01000012: "ppc64",
}
KINDS: Mapping[int, str] = {2: "program", 6: "library", 8: "library"}
SEGMENT, SEGMENT_64, CODE_SIGNATURE = 0x01, 0x19, 0x1D
COMMANDS_BYTES = 1024 * 1024
"""Load commands of one slice: large programs come to some tens of KiB."""


def mach_o_headers(window: Window) -> Executable:
    """What a Mach-O file is for, once its slices and segments are known to lie within the file."""
    parts = list(_slices(window))
    found = [_thin(part) for part in parts]
    machines = [one.architecture for one in found]
    if len(set(machines)) < len(machines):
        raise malformed(window, "has two slices for one machine")
    signed = all("code_signature" in one.details for one in found)
    details = {"kind": found[0].details["kind"]}
    if signed:
        details["code_signature"] = "present, not verified"
    return Executable(",".join(sorted(machines)), "darwin", details)


def _slices(window: Window) -> Iterator[Window]:
    magic = window.read(0, 4, "the magic of Mach-O")
    if magic not in (FAT_HEAD, FAT_HEAD_64):
        yield window
        return
    count = int.from_bytes(window.read(4, 4, "the count of slices"), "big")
    layout = struct.Struct(">LLLLL" if magic == FAT_HEAD else ">LLQQLL")
    if not 0 < count <= FAT_SLICES:
        raise malformed(window, f"has {count} slices, and 1 to {FAT_SLICES} are allowed")
    places = [
        layout.unpack(window.read(8 + index * layout.size, layout.size, "a slice's header"))[2:4]
        for index in range(count)
    ]
    end = 8 + count * layout.size
    for offset, size in sorted(places):
        if offset < end:
            raise BadArtefact(Code.OVERLAPPING_ENTRIES, window.name, "two of its slices share bytes")
        check_within(window, offset, size, "a slice")
        end = offset + size
        yield window.part(offset, size, window.name)


def _thin(window: Window) -> Executable:
    order, header_bytes = THIN.get(window.head(4), ("", 0))
    if not order:
        raise malformed(window, "a slice of it does not begin as a Mach-O does")
    head = window.read(0, header_bytes, "the header of Mach-O")
    machine, _, kind, count, size = struct.unpack_from(order + "LLLLL", head, 4)
    if kind not in KINDS:
        message = "is a Mach-O of another kind than program or library; package what is run"
        raise BadArtefact(Code.UNSUPPORTED_FORMAT, window.name, message)
    if size > COMMANDS_BYTES:
        raise malformed(window, f"has {size} bytes of load commands, more than {COMMANDS_BYTES}")
    commands = window.read(header_bytes, size, "the load commands")
    signed = _commands(window, commands, count, order)
    details = {"kind": KINDS[kind], **({"code_signature": "present"} if signed else {})}
    return Executable(MACHINES.get(machine, f"mach-o-{machine:#x}"), "darwin", details)


def _commands(window: Window, commands: bytes, count: int, order: str) -> bool:
    """Check that every command and segment lies where it may; whether one of them is a signature."""
    signed = False
    at = 0
    for _ in range(count):
        if at + 8 > len(commands):
            raise malformed(window, f"has fewer load commands than the {count} that it counts")
        command, size = struct.unpack_from(order + "LL", commands, at)
        if size < 8 or size % 4 or at + size > len(commands):
            raise malformed(window, f"a load command at byte {at} has an impossible size")
        body = commands[at : at + size]
        if command in (SEGMENT, SEGMENT_64):
            _check_segment(window, body, order, wide=command == SEGMENT_64)
        elif command == CODE_SIGNATURE:
            signed = True
        at += size
    return signed


def _check_segment(window: Window, body: bytes, order: str, *, wide: bool) -> None:
    layout = struct.Struct(order + ("40xQQ" if wide else "32xLL"))
    if len(body) < layout.size:
        raise malformed(window, "a segment's load command is too short")
    offset, size = layout.unpack_from(body)
    check_within(window, offset, size, "a segment")
