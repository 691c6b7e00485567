"""ELF, by the System V ABI's gABI, chapters 4 and 5."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from controlplane.packaging.archives.errors import BadArtefact, Code, printable
from controlplane.packaging.archives.facts.executable import Executable, check_within, malformed
from controlplane.packaging.archives.window import Window

EXECUTABLE, SHARED = 2, 3
INTERPRETER = 3
INTERPRETER_BYTES = 4096
ORDERS = {1: "<", 2: ">"}
FAMILIES: Mapping[int, str] = {0: "linux", 3: "linux", 9: "freebsd", 12: "openbsd", 2: "netbsd", 6: "solaris"}
"""By the ABI byte. 0 is what nearly all programs for Linux carry, and those of few other systems."""
MACHINES: Mapping[tuple[int, int], str] = {
    (3, 1): "i686",
    (8, 1): "mips",
    (8, 2): "mips64",
    (20, 1): "ppc",
    (21, 2): "ppc64",
    (22, 2): "s390x",
    (40, 1): "arm",
    (62, 1): "x32",
    (62, 2): "x86_64",
    (183, 2): "aarch64",
    (243, 1): "riscv32",
    (243, 2): "riscv64",
    (258, 2): "loongarch64",
}
"""By machine and class (1: 32 bits, 2: 64)."""


def elf_headers(window: Window) -> Executable:
    """What an ELF file is for, once its tables and segments are known to lie within the file."""
    ident = window.read(0, 16, "the identification of ELF")
    bits, order, abi = ident[4], ORDERS.get(ident[5]), ident[7]
    if bits not in (1, 2) or order is None or ident[6] != 1:
        raise malformed(window, "its class, byte order or version is none that ELF has")
    layout = struct.Struct(order + ("HHLLLLLHHHHHH" if bits == 1 else "HHLQQQLHHHHHH"))
    fields = layout.unpack(window.read(16, layout.size, "the header of ELF"))
    kind, machine, _, _, segments, sections, _, _, size_p, count_p, size_s, count_s, _ = fields
    if kind not in (EXECUTABLE, SHARED):
        message = "is an ELF file of another kind than program or library; package what is run"
        raise BadArtefact(Code.UNSUPPORTED_FORMAT, window.name, message)
    check_within(window, sections, size_s * count_s, "the section table")
    interpreter = _segments(window, order, bits, (segments, size_p, count_p))
    details = {"kind": "shared object" if kind == SHARED and not interpreter else "program"}
    if interpreter:
        details["interpreter"] = interpreter
    return Executable(_machine(machine, bits, order), FAMILIES.get(abi, ""), details)


def _machine(machine: int, bits: int, order: str) -> str:
    name = MACHINES.get((machine, bits), f"elf-{machine}")
    if name == "ppc64" and order == "<":
        return "ppc64le"
    return f"{name}el" if name.startswith("mips") and order == "<" else name


def _segments(window: Window, order: str, bits: int, table: tuple[int, int, int]) -> str:
    """Check that every segment lies within the file; the dynamic loader's path, where one is named."""
    begin, size, count = table
    layout = struct.Struct(order + ("LLLLL" if bits == 1 else "LLQQQQ"))
    if count and size < layout.size:
        message = f"an entry of its segment table has {size} bytes, and must have {layout.size}"
        raise malformed(window, message)
    check_within(window, begin, size * count, "the segment table")
    interpreter = ""
    for index in range(count):
        fields = layout.unpack(window.read(begin + index * size, layout.size, "a segment"))
        kind, offset, length = fields[0], fields[1 if bits == 1 else 2], fields[4 if bits == 1 else 5]
        check_within(window, offset, length, "a segment")
        if kind == INTERPRETER:
            raw = window.read(offset, min(length, INTERPRETER_BYTES), "the loader's path")
            interpreter = printable(raw.partition(b"\0")[0].decode("utf-8", "replace"))
    return interpreter
