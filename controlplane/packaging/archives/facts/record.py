"""RECORD of a wheel: every file listed, each with the right digest (binary distribution format, PEP 427)."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from collections.abc import Mapping

from controlplane.packaging.archives.errors import BadArtefact, Code, printable
from controlplane.packaging.archives.tree import Tree
from controlplane.packaging.records import FileEntry

ALGORITHMS = ("sha256", "sha384", "sha512")
"""PEP 427 asks for SHA-256 or better."""


def verify_record(tree: Tree, info: str) -> None:
    """Hold every file against ``info``/RECORD.

    Raises ``MEMBER_MISSING`` (listed, not there), ``MEMBER_NOT_LISTED`` (there, not listed),
    ``DIGEST_MISMATCH``, ``DUPLICATE_ENTRY``, ``BAD_METADATA``.
    """
    record = f"{info}/RECORD"
    listed = _rows(tree.text(record, tree.limits.list_bytes), record, tree.limits.members)
    # A list cannot hold its own digest; signatures of it are made after it.
    unlisted_by_rule = {record, f"{record}.jws", f"{record}.p7s"}
    for path, (digest, size) in listed.items():
        entry = tree.files.get(path)
        if entry is None:
            raise BadArtefact(Code.MEMBER_MISSING, path, f"is listed in {record} and not in the wheel")
        if path not in unlisted_by_rule:
            _verify(tree, entry, digest, size)
    for path in tree.files.keys() - listed.keys() - unlisted_by_rule:
        raise BadArtefact(Code.MEMBER_NOT_LISTED, path, f"is in the wheel and not listed in {record}")


def _rows(text: str, record: str, limit: int) -> Mapping[str, tuple[str, str]]:
    listed: dict[str, tuple[str, str]] = {}
    try:
        for row in csv.reader(io.StringIO(text, newline=""), strict=True):
            _take(row, listed, record)
            if len(listed) > limit:
                raise BadArtefact(Code.TOO_MANY_MEMBERS, record, f"lists more than {limit} files")
    except csv.Error as error:
        message = f"is no table of commas ({printable(str(error))})"
        raise BadArtefact(Code.BAD_METADATA, record, message) from None
    return listed


def _take(row: list[str], listed: dict[str, tuple[str, str]], record: str) -> None:
    if not row:
        return
    if len(row) != 3:
        shown = printable(",".join(row))
        message = f"a row has not the three columns that it must: {shown!r}"
        raise BadArtefact(Code.BAD_METADATA, record, message)
    path, digest, size = row
    if listed.setdefault(path, (digest, size)) != (digest, size):
        raise BadArtefact(Code.DUPLICATE_ENTRY, path, f"is listed twice in {record}, with different digests")


def _verify(tree: Tree, entry: FileEntry, digest: str, size: str) -> None:
    algorithm, equals, expected = digest.partition("=")
    if not equals or algorithm not in ALGORITHMS:
        message = f"is listed with {printable(digest)!r} and not with {', '.join(ALGORITHMS)}; build it anew"
        raise BadArtefact(Code.BAD_METADATA, entry.path, message)
    if size and size != str(entry.size):
        message = f"has {entry.size} bytes, and RECORD says {printable(size)}"
        raise BadArtefact(Code.DIGEST_MISMATCH, entry.path, message)
    found = bytes.fromhex(entry.sha256) if algorithm == "sha256" else _digest(tree, entry.path, algorithm)
    if base64.urlsafe_b64encode(found).rstrip(b"=").decode() != expected.rstrip("="):
        raise BadArtefact(Code.DIGEST_MISMATCH, entry.path, "its digest is not the one that RECORD lists")


def _digest(tree: Tree, path: str, algorithm: str) -> bytes:
    digest = hashlib.new(algorithm)
    with tree.window(path) as window:
        for piece in window.chunks():
            digest.update(piece)
    return digest.digest()
