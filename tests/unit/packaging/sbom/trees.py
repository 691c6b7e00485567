"""Folders of extracted files, made on the spot."""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

from controlplane.packaging.records import ArtefactFacts, ArtefactType, Component, FileEntry, Inventory
from controlplane.packaging.sbom.inventory import take_inventory

SHA256 = "ab" * 32


def write(
    root: Path, files: Mapping[str, str | bytes], links: Mapping[str, str] | None = None
) -> list[FileEntry]:
    """Write files below ``root``; return what a reader would say of them."""
    entries = []
    for path, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        entries.append(FileEntry(path, len(data), hashlib.sha256(data).hexdigest(), 0o644))
    for path, link in (links or {}).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to(link)
        entries.append(FileEntry(path, 0, "", 0o777, link_target=link))
    return entries


def facts(kind: ArtefactType, name: str = "demo", version: str = "1.0") -> ArtefactFacts:
    return ArtefactFacts(kind, name, version)


def inventory(
    root: Path,
    kind: ArtefactType,
    files: Mapping[str, str | bytes],
    links: Mapping[str, str] | None = None,
    **said: str,
) -> Inventory:
    return take_inventory(root, facts(kind, **said), SHA256, write(root, files, links))


def by_purl(taken: Inventory) -> dict[str, Component]:
    return {component.purl: component for component in taken.components}


def metadata(name: str = "demo", version: str = "1.0", *lines: str) -> str:
    head = ("Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}")
    return "\n".join([*head, *lines, "", "A description.", ""])


def record(files: Mapping[str, str | bytes]) -> str:
    rows = []
    for path, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(data)}")
    return "\n".join(rows) + "\n"


def wheel(*requirements: str, name: str = "demo", version: str = "1.0") -> dict[str, str | bytes]:
    """The files of a wheel that needs what ``requirements`` say."""
    folder = f"{name}-{version}.dist-info"
    files: dict[str, str | bytes] = {
        f"{name}/__init__.py": "ANSWER = 42\n",
        f"{folder}/METADATA": metadata(
            name, version, "License: MIT", *(f"Requires-Dist: {one}" for one in requirements)
        ),
        f"{folder}/WHEEL": "Wheel-Version: 1.0\n",
    }
    files[f"{folder}/RECORD"] = record(files) + f"{folder}/RECORD,,\n"
    return files


def zipped(files: Mapping[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return buffer.getvalue()
