"""Archives that no honest program writes: a good backup taken apart and put together otherwise."""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

Files = dict[str, bytes]


def files_of(backup: Path) -> Files:
    """Return the members of a backup, in order, the manifest first."""
    with tarfile.open(backup) as archive:
        found = {member.name: archive.extractfile(member) for member in archive}
        return {name: file.read() for name, file in found.items() if file is not None}


def write(path: Path, files: Files, change: Callable[[tarfile.TarInfo], None] = lambda _info: None) -> Path:
    """Write a tar of ``files``; ``change`` may spoil each header."""
    with path.open("wb") as file:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            change(info)
            file.write(info.tobuf(tarfile.GNU_FORMAT))
            file.write(content + bytes(-len(content) % tarfile.BLOCKSIZE))
        file.write(bytes(2 * tarfile.BLOCKSIZE))
    return path


def with_manifest(files: Files, change: Callable[[dict[str, Any]], None]) -> Files:
    """Return ``files`` with a manifest that ``change`` was let at."""
    manifest = json.loads(files["manifest.json"])
    change(manifest)
    return {**files, "manifest.json": json.dumps(manifest).encode()}


def with_file(files: Files, name: str, content: bytes) -> Files:
    """Return ``files`` with another content of one, and a manifest that agrees."""

    def agree(manifest: dict[str, Any]) -> None:
        entry = next(entry for entry in manifest["files"] if entry["name"] == name)
        entry.update(size=len(content), sha256=hashlib.sha256(content).hexdigest())

    return with_manifest({**files, name: content}, agree)


def database(tmp_path: Path, content: bytes, statement: str) -> bytes:
    """Return the database ``content`` after ``statement``."""
    path = tmp_path / "spoiled.db"
    path.write_bytes(content)
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path.read_bytes()


def with_lagging_index(tmp_path: Path, content: bytes) -> bytes:
    """Return the database ``content`` with a row that one index does not know of."""
    path = tmp_path / "lagging.db"
    path.write_bytes(content)
    name = "ix_enrollment_tokens_create_time_token_id"
    columns = "type, name, tbl_name, rootpage, sql"

    def run(*statements: tuple[str, tuple[Any, ...]]) -> list[Any]:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA writable_schema=ON")
        found = [connection.execute(statement, values).fetchall() for statement, values in statements][-1]
        connection.close()
        return found

    (index,) = run((f"SELECT {columns} FROM sqlite_master WHERE name = ?", (name,)))
    run(("DELETE FROM sqlite_master WHERE name = ?", (name,)))
    run(("INSERT INTO enrollment_tokens VALUES ('t', x'00', '', '{}', 1, 0, 0, '', 1, 1, NULL)", ()))
    run((f"INSERT INTO sqlite_master ({columns}) VALUES (?, ?, ?, ?, ?)", index))
    return path.read_bytes()


def nested(depth: int) -> bytes:
    """Return JSON that is deeper than a parser likes."""
    return io.BytesIO(b"[" * depth).getvalue()
