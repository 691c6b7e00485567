"""Three small artefacts, made on the spot, and what the demo says is known of their vulnerabilities."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import platform
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

WHEEL, DEB, BINARY = "demo-app", "demo-tool", "demo-hello"
WHEEL_CVE, DEB_CVE = "CVE-2026-90001", "CVE-2026-90002"
"""Ids of vulnerabilities that there are nowhere but here."""

GREETING = b"hello from a package of fleetwright\n"

_CRITICAL = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"
_HIGH = "CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H"
_BASE = 0x400000
_HEADER, _PROGRAM, _SECTION = 64, 56, 64


@dataclass(frozen=True)
class Artefacts:
    """Where they are. ``binary`` is None on a processor that no program was written for."""

    wheel: Path
    deb: Path
    binary: Path | None
    advisories: tuple[Path, ...]


def make(folder: Path, now: datetime) -> Artefacts:
    """Write the artefacts, and one export of advisories for each ecosystem, to a new folder."""
    folder.mkdir()
    wheel, deb = folder / "demo_app-1.0-py3-none-any.whl", folder / "demo-tool_2.0-1_all.deb"
    wheel.write_bytes(_wheel())
    deb.write_bytes(_deb())
    program, binary = _program(), None
    if program is not None:
        binary = folder / BINARY
        binary.write_bytes(program)
    exports = [
        _export(folder, "PyPI", WHEEL_CVE, "PyPI", "demo-parser", "1.1", _CRITICAL, now),
        _export(folder, "Debian", DEB_CVE, "Debian:12", DEB, "2.1-1", _HIGH, now),
        _export(folder, "Go", "CVE-2026-90003", "Go", "example.com/demo/other", "1.1.0", _HIGH, now),
    ]
    return Artefacts(wheel, deb, binary, tuple(exports))


def _export(
    folder: Path, name: str, cve: str, ecosystem: str, package: str, fixed: str, severity: str, now: datetime
) -> Path:
    """Write an export of OSV with one record: all versions of a package before ``fixed`` are affected."""
    at = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    record = {
        "schema_version": "1.6.0",
        "id": cve.replace("CVE", "DEMO"),
        "aliases": [cve],
        "modified": at,
        "published": at,
        "summary": "made up for a demo",
        "severity": [{"type": "CVSS_V3", "score": severity}],
        "affected": [
            {
                "package": {"ecosystem": ecosystem, "name": package},
                "ranges": [
                    {
                        "type": "SEMVER" if ecosystem == "Go" else "ECOSYSTEM",
                        "events": [{"introduced": "0"}, {"fixed": fixed}],
                    }
                ],
            }
        ],
    }
    path = folder / f"{name}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as export:
        export.writestr(f"{record['id']}.json", json.dumps(record))
    return path


def _wheel() -> bytes:
    """A wheel that needs one version of another, which has a critical vulnerability."""
    info = "demo_app-1.0.dist-info"
    files = {
        "demo_app/__init__.py": b'"""A demo."""\n',
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: demo-app\nVersion: 1.0\n"
        b"Requires-Dist: demo-parser==1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: demo\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [f"{path},sha256={_wheel_digest(data)},{len(data)}" for path, data in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as wheel:
        for path, data in files.items():
            wheel.writestr(zipfile.ZipInfo(path), data)
    return out.getvalue()


def _wheel_digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _deb() -> bytes:
    """A .deb of a version that has a vulnerability of high severity."""
    control = (
        b"Package: demo-tool\nVersion: 2.0-1\nArchitecture: all\n"
        b"Maintainer: Demo <demo@example.org>\nDescription: a demo\n"
    )
    tool = b"#!/bin/sh\necho a tool\n"
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": _tar({"./control": (control, 0o644)}),
        "data.tar.gz": _tar({"./usr/bin/demo-tool": (tool, 0o755)}),
    }
    out = b"!<arch>\n"
    for name, data in members.items():
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode() + data
        out += b"\n" * (len(data) % 2)
    return out


def _tar(files: Mapping[str, tuple[bytes, int]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", format=tarfile.GNU_FORMAT) as archive:
        for path, (data, mode) in files.items():
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(data), mode
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def _program() -> bytes | None:
    """A program for Linux on this processor, byte by byte: it says hello and ends.

    It carries build information in the form that Go gives its programs, so that it says of itself what
    it was built from; there is no other form that a bare executable has.
    """
    written = _CODE.get(platform.machine())
    if written is None:
        return None
    machine, code = written
    return _elf(machine, code, _build_information())


def _x86_64() -> bytes:
    # write(1, message, length); exit(0). The message lies right behind the code.
    code = b"\xb8\x01\x00\x00\x00\xbf\x01\x00\x00\x00\x48\x8d\x35"
    tail = b"\xba" + struct.pack("<I", len(GREETING)) + b"\x0f\x05\xb8\x3c\x00\x00\x00\x31\xff\x0f\x05"
    return code + struct.pack("<i", len(tail)) + tail + GREETING


def _aarch64() -> bytes:
    # mov x0,1; adr x1,message; mov x2,length; mov x8,64; svc 0; mov x0,0; mov x8,93; svc 0
    words = [0xD2800020, 0x100000E1, 0xD2800002 | len(GREETING) << 5, 0xD2800808, 0xD4000001]
    words += [0xD2800000, 0xD2800BA8, 0xD4000001]
    return struct.pack("<8I", *words) + GREETING


_CODE = {"x86_64": (62, _x86_64()), "aarch64": (183, _aarch64())}


def _build_information() -> bytes:
    toolchain = b"go1.25.0"
    frame = b"0123456789abcdef"
    modules = frame + b"path\texample.com/demo/hello\nmod\texample.com/demo/hello\tv1.0.0\t\n" + frame
    head = b"\xff Go buildinf:" + bytes([8, 2]) + bytes(16)
    return head + bytes([len(toolchain)]) + toolchain + bytes([len(modules)]) + modules


def _elf(machine: int, code: bytes, information: bytes) -> bytes:
    """An ELF file with a segment for the code, and one for the build information, which has a section."""
    names = b"\0.go.buildinfo\0.shstrtab\0"
    at_code = _HEADER + 2 * _PROGRAM
    at_information = -(-(at_code + len(code)) // 16) * 16
    at_names = at_information + len(information)
    sections = [(0,) * 6, (1, 1, 3, _BASE * 2 + at_information, at_information, len(information))]
    sections.append((15, 3, 0, 0, at_names, len(names)))
    identity = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    numbers = (2, machine, 1, _BASE + at_code, _HEADER, at_names + len(names), 0, _HEADER, _PROGRAM, 2)
    header = identity + struct.pack("<HHIQQQIHHHHHH", *numbers, _SECTION, len(sections), 2)
    segments = [(5, 0, at_code + len(code), _BASE), (6, at_information, len(information), _BASE * 2)]
    for flags, offset, size, base in segments:
        header += struct.pack(
            "<IIQQQQQQ", 1, flags, offset, base + offset, base + offset, size, size, 0x10000
        )
    body = (header + code).ljust(at_information, b"\0") + information + names
    return body + b"".join(struct.pack("<IIQQQQ", *row).ljust(_SECTION, b"\0") for row in sections)
