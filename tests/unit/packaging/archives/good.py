"""A good artefact of each type, made on the spot with Python's own writers."""

from __future__ import annotations

import base64
import bz2
import gzip
import hashlib
import io
import json
import lzma
import struct
import tarfile
import zipfile
from collections.abc import Callable, Mapping

from tests.unit.packaging.archives.raw import ar

METADATA = b"Metadata-Version: 2.1\nName: demo-pkg\nVersion: 1.2.3\nSummary: A demo\n\nText: not a field\n"
WHEEL = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
CONTROL = (
    b"Package: demo\nVersion: 1:2.0-1\nArchitecture: amd64\n"
    b"Maintainer: A <a@b.example>\nDescription: short\n long\n"
)
WHEEL_NAME = "demo_pkg-1.2.3-py3-none-any.whl"
INFO = "demo_pkg-1.2.3.dist-info"


def made_zip(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return out.getvalue()


def made_tar(files: Mapping[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def listed(data: bytes, algorithm: str = "sha256") -> str:
    digest = base64.urlsafe_b64encode(hashlib.new(algorithm, data).digest()).rstrip(b"=").decode()
    return f"{algorithm}={digest},{len(data)}"


def wheel_files(**changes: bytes) -> dict[str, bytes]:
    """The files of a wheel by path; ``changes`` by the last part of a path, before RECORD is written."""
    files = {"demo_pkg/__init__.py": b"VALUE = 1\n", f"{INFO}/METADATA": METADATA, f"{INFO}/WHEEL": WHEEL}
    files = {path: changes.get(path.rpartition("/")[2], data) for path, data in files.items()}
    rows = [f"{path},{listed(data)}" for path, data in files.items()]
    files[f"{INFO}/RECORD"] = "\n".join([*rows, f"{INFO}/RECORD,,", ""]).encode()
    return files


def wheel(**changes: bytes) -> bytes:
    return made_zip(wheel_files(**changes))


def sdist(metadata: bytes = METADATA, folder: str = "demo_pkg-1.2.3") -> bytes:
    files = {f"{folder}/PKG-INFO": metadata, f"{folder}/setup.py": b"pass\n"}
    return gzip.compress(made_tar(files), mtime=0)


def npm(manifest: object = None, raw: bytes | None = None) -> bytes:
    known = {"name": "@demo/pkg", "version": "1.2.3", "license": "MIT", "os": ["linux"], "cpu": ["x64"]}
    text = raw if raw is not None else json.dumps(known if manifest is None else manifest).encode()
    return gzip.compress(made_tar({"package/package.json": text, "package/index.js": b"1\n"}), mtime=0)


def jar(manifest: bytes = b"Manifest-Version: 1.0\r\nMain-Class: a.B\r\n\r\n", **more: bytes) -> bytes:
    pom = b"#made by test\ngroupId=org.demo\nartifactId=demo\nversion=1.2.3\n"
    files = {"META-INF/MANIFEST.MF": manifest, "META-INF/maven/org.demo/demo/pom.properties": pom}
    return made_zip({**files, "a/B.class": b"\xca\xfe\xba\xbe\0\0\0\x34", **more})


PACKERS: Mapping[str, Callable[[bytes], bytes]] = {
    "xz": lzma.compress,
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "": bytes,
}


def deb(control: bytes = CONTROL, data: Mapping[str, bytes] | None = None, ending: str = "xz") -> bytes:
    content = {"./usr/bin/demo": b"#!/bin/sh\n", "./usr/share/doc/demo/copyright": b"free\n"}
    tars = made_tar({"./control": control}), made_tar(content if data is None else data)
    pack = PACKERS[ending]
    dot = f".{ending}" if ending else ""
    return ar(
        ("debian-binary", b"2.0\n"),
        (f"control.tar{dot}", pack(tars[0])),
        (f"data.tar{dot}", pack(tars[1])),
    )


def elf(machine: int = 62, kind: int = 2, bits: int = 2, order: str = "<", abi: int = 0) -> bytes:
    """An ELF with one segment that names a loader, and content behind it."""
    ident = b"\x7fELF" + bytes([bits, 1 if order == "<" else 2, 1, abi]) + bytes(8)
    loader = b"/lib/ld.so\0"
    head, segment = (64, 56) if bits == 2 else (52, 32)
    layout = "HHLQQQLHHHHHH" if bits == 2 else "HHLLLLLHHHHHH"
    fields = (kind, machine, 1, 0, head, 0, 0, head, segment, 1, 0, 0, 0)
    place = head + segment
    if bits == 2:
        table = struct.pack(order + "LLQQQQQQ", 3, 4, place, 0, 0, len(loader), len(loader), 1)
    else:
        table = struct.pack(order + "LLLLLLLL", 3, place, 0, 0, len(loader), len(loader), 4, 1)
    return ident + struct.pack(order + layout, *fields) + table + loader + b"code" * 64


def pe(machine: int = 0x8664, flags: int = 0x0022) -> bytes:
    dos = b"MZ" + bytes(58) + struct.pack("<L", 64)
    optional = struct.pack("<H106xL", 0x20B, 16) + bytes(128)
    coff = struct.pack("<4sHH12xHH", b"PE\0\0", machine, 1, len(optional), flags)
    begin = len(dos) + len(coff) + len(optional) + 40
    section = struct.pack("<8sLLLL16x", b".text", 16, 4096, 512, begin)
    return dos + coff + optional + section + bytes(512)


def mach_o(machine: int = 0x0100000C, kind: int = 2, size: int = 256) -> bytes:
    segment = struct.pack("<LL16sQQQQLLLL", 0x19, 72, b"__TEXT", 0, 0, 0, size, 0, 0, 0, 0)
    head = struct.pack("<LLLLLLLL", 0xFEEDFACF, machine, 0, kind, 1, len(segment), 0, 0)
    return (head + segment).ljust(size, b"\0")


def universal(*slices: bytes) -> bytes:
    place = 4096
    head = struct.pack(">LL", 0xCAFEBABE, len(slices))
    body = b""
    for one in slices:
        machine = int.from_bytes(one[4:8], "little")
        head += struct.pack(">LLLLL", machine, 0, place + len(body), len(one), 12)
        body += one
    return head.ljust(place, b"\0") + body


GOOD: Mapping[str, tuple[str, bytes]] = {
    "wheel": (WHEEL_NAME, wheel()),
    "sdist": ("demo_pkg-1.2.3.tar.gz", sdist()),
    "npm": ("demo-pkg-1.2.3.tgz", npm()),
    "jar": ("demo-1.2.3.jar", jar()),
    "deb": ("demo_2.0-1_amd64.deb", deb()),
    "archive": ("tool-1.0-linux-amd64.zip", made_zip({"tool/bin/run": b"run\n" * 9, "tool/README": b"x"})),
    "binary": ("tool-1.0", elf()),
}
"""By type: a declared name and the bytes."""
