"""Small executables with Go's build information, made on the spot."""

from __future__ import annotations

import struct

MODULES = (
    "path\texample.com/demo\n"
    "mod\texample.com/demo\t(devel)\t\n"
    "dep\tgithub.com/BurntSushi/toml\tv1.2.0\th1:abc=\n"
    "dep\tgolang.org/x/net\tv0.1.0\th1:abc=\n"
    "=>\tgolang.org/x/net\tv0.2.0\th1:def=\n"
    "dep\texample.com/forked\tv0.3.0\n"
    "=>\t./forked\t\t\n"
    "build\tGOOS=linux\n"
)
FRAME = b"0123456789abcdef"
ADDRESS = 0x10000


def varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def inline(modules: str = MODULES, toolchain: str = "go1.21.5") -> bytes:
    framed = FRAME + modules.encode() + FRAME
    return (
        b"\xff Go buildinf:"
        + bytes([8, 2])
        + bytes(16)
        + varint(len(toolchain))
        + toolchain.encode()
        + varint(len(framed))
        + framed
    )


def pointed(order: str, size: int, modules: str = MODULES, toolchain: str = "go1.16") -> bytes:
    """The older form: pointers to descriptors of texts, all within the same section."""
    framed = FRAME + modules.encode() + FRAME
    number = {4: "I", 8: "Q"}[size]
    texts = 32 + 4 * size
    head = b"\xff Go buildinf:" + bytes([size, order == ">"])
    head += struct.pack(order + number * 2, ADDRESS + 32, ADDRESS + 32 + 2 * size)
    head = head.ljust(32, b"\0")
    where = ADDRESS + texts
    head += struct.pack(order + number * 4, where, len(toolchain), where + len(toolchain), len(framed))
    return head + toolchain.encode() + framed


def elf(data: bytes, order: str = "<", wide: bool = True, section: bool = True) -> bytes:
    """An ELF file with one writable segment, and the section of build information if ``section``."""
    names = b"\0.go.buildinfo\0.shstrtab\0"
    head, program, each = (64, 56, 64) if wide else (52, 32, 40)
    at = head + program
    names_at = at + len(data)
    table = names_at + len(names)
    count = 3 if section else 0
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    form = "HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH"
    header = ident + struct.pack(order + form, 2, 62, 1, 0, head, table, 0, head, program, 1, each, count, 2)
    if wide:
        loaded = struct.pack(order + "IIQQQQQQ", 1, 6, at, ADDRESS, ADDRESS, len(data), len(data), 16)
    else:
        loaded = struct.pack(order + "IIIIIIII", 1, at, ADDRESS, ADDRESS, len(data), len(data), 6, 16)
    shape = order + ("IIQQQQ" if wide else "IIIIII")
    rows = [(0, 0, 0, 0, 0, 0), (1, 1, 3, ADDRESS, at, len(data)), (15, 3, 0, 0, names_at, len(names))]
    sections = b"".join(struct.pack(shape, *row).ljust(each, b"\0") for row in rows[:count])
    return header + loaded + data + names + sections


def pe(data: bytes, wide: bool = True) -> bytes:
    """A PE file with one section of data."""
    base = 0x400000
    kind = struct.pack("<H22xQ", 0x20B, base) if wide else struct.pack("<H26xI", 0x10B, base)
    optional = kind.ljust(112, b"\0")
    start = 0x80
    at = start + 24 + len(optional) + 40
    head = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", start)
    coff = b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, 1, 0, 0, 0, len(optional), 0)
    section = struct.pack("<8sIIII12xI", b".data", len(data), ADDRESS, len(data), at, 0xC0000040)
    return head.ljust(start, b"\0") + coff + optional + section + data


def macho(data: bytes, order: str = "<", wide: bool = True) -> bytes:
    """A Mach-O file with one segment that has a section of build information."""
    magic = {("<", True): 0xFEEDFACF, (">", True): 0xFEEDFACF}.get((order, wide), 0xFEEDFACE)
    head = 32 if wide else 28
    size = (72 + 80) if wide else (56 + 68)
    at = head + size
    header = struct.pack(order + "IIIIIII", magic, 0, 0, 2, 1, size, 0).ljust(head, b"\0")
    if wide:
        command = struct.pack(
            order + "II16sQQQQIIII", 0x19, size, b"__DATA", ADDRESS, len(data), at, len(data), 3, 3, 1, 0
        )
        section = struct.pack(order + "16s16sQQI", b"__go_buildinfo", b"__DATA", ADDRESS, len(data), at)
    else:
        command = struct.pack(
            order + "II16sIIIIIIII", 0x1, size, b"__DATA", ADDRESS, len(data), at, len(data), 3, 3, 1, 0
        )
        section = struct.pack(order + "16s16sIII", b"__go_buildinfo", b"__DATA", ADDRESS, len(data), at)
    return header + (command + section).ljust(size, b"\0") + data


def universal(*slices: bytes) -> bytes:
    head = struct.pack(">II", 0xCAFEBABE, len(slices))
    offset, table, body = 8 + 20 * len(slices), b"", b""
    for one in slices:
        table += struct.pack(">IIIII", 0, 0, offset + len(body), len(one), 0)
        body += one
    return head + table + body
