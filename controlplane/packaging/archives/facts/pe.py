"""PE, by Microsoft's "PE Format": programs and libraries of Windows."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from controlplane.packaging.archives.errors import BadArtefact, Code
from controlplane.packaging.archives.facts.executable import Executable, check_within, malformed
from controlplane.packaging.archives.window import Window

MACHINES: Mapping[int, str] = {
    0x014C: "i686",
    0x01C4: "armv7l",
    0x8664: "x86_64",
    0xAA64: "aarch64",
    0x5064: "riscv64",
    0x6264: "loongarch64",
}
EXECUTABLE_IMAGE, LIBRARY = 0x0002, 0x2000
DIRECTORIES = {0x10B: 92, 0x20B: 108}
"""By magic of the optional header (32 bits, 64): where the count of data directories stands in it."""
SECTIONS = 96
"""The most that Windows loads."""
SECTION_BYTES = 40
CERTIFICATES = 4
"""The directory that holds Authenticode signatures; alone of all it counts from the file's beginning."""


def pe_headers(window: Window) -> Executable:
    """What a PE file is for, once its sections are known to lie within the file."""
    place = int.from_bytes(window.read(60, 4, "the header of DOS"), "little")
    head = window.read(place, 24, "the header of PE")
    machine, sections, optional_bytes, flags = struct.unpack("<HH12xHH", head[4:])
    if head[:4] != b"PE\0\0" or sections > SECTIONS:
        message = f"has no header of PE, or one of {sections} sections where {SECTIONS} are allowed"
        raise malformed(window, message)
    if not flags & EXECUTABLE_IMAGE:
        raise BadArtefact(Code.UNSUPPORTED_FORMAT, window.name, "is a PE file that was not linked to the end")
    optional = window.read(place + 24, optional_bytes, "the optional header")
    signed = _certificates(window, optional)
    for index in range(sections):
        at = place + 24 + optional_bytes + index * SECTION_BYTES
        raw_size, raw_place = struct.unpack("<16xLL16x", window.read(at, SECTION_BYTES, "a section's header"))
        check_within(window, raw_place if raw_size else 0, raw_size, "a section")
    details = {"kind": "library" if flags & LIBRARY else "program"}
    if signed:
        details["authenticode"] = "present, not verified"
    return Executable(MACHINES.get(machine, f"pe-{machine:#06x}"), "windows", details)


def _certificates(window: Window, optional: bytes) -> bool:
    count_at = DIRECTORIES.get(int.from_bytes(optional[:2], "little"))
    if count_at is None or len(optional) < count_at + 4:
        raise malformed(window, "its optional header is none of 32 or 64 bits")
    count = int.from_bytes(optional[count_at : count_at + 4], "little")
    at = count_at + 4 + 8 * CERTIFICATES
    if count <= CERTIFICATES or len(optional) < at + 8:
        return False
    offset, size = struct.unpack_from("<LL", optional, at)
    check_within(window, offset, size, "the table of certificates")
    return bool(size)
