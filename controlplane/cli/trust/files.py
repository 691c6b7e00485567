"""The documents that go from one holder of a key to the next, as files."""

from __future__ import annotations

from pathlib import Path

import typer

from controlplane.cli.failures import CommandFailed, Exit
from controlplane.trust.files import write_file

LARGEST = 1024 * 1024
"""Bytes of a document; the contract's limit for the larger of the two."""


def read_document(path: Path) -> bytes:
    """Read a document. Raises ``CommandFailed``."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise CommandFailed(f"{path}: {error.strerror}") from None
    if len(content) > LARGEST:
        raise CommandFailed(f"{path}: larger than any document of an offline role: name another file")
    return content


def write_new(path: Path, content: bytes) -> None:
    """Write a file that nobody has yet. Raises ``CommandFailed``."""
    if path.exists() or path.is_symlink():
        raise CommandFailed(
            f"{path}: exists already, and signatures in it would be lost: choose another name"
        )
    replace(path, content)


def replace(path: Path, content: bytes) -> None:
    """Write a file in one step. Raises ``CommandFailed``."""
    try:
        write_file(path, content)
    except OSError as error:
        raise CommandFailed(f"{path}: {error.strerror}: name a place that this user may write") from None


def new_passphrase(encrypt: bool, file: Path | None) -> str | None:
    """Return the passphrase for new keys, asked for twice, or None for none. Raises ``CommandFailed``."""
    if encrypt and file is not None:
        raise CommandFailed("--encrypt and --passphrase-file: give one of them", Exit.USAGE)
    if file is not None:
        return passphrase_in(file)
    if encrypt:
        return str(
            typer.prompt(
                "Passphrase of the offline keys", hide_input=True, confirmation_prompt=True, err=True
            )
        )
    return None


def passphrase_in(file: Path) -> str:
    """Return the first line of a file. Raises ``CommandFailed``."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeError:
        raise CommandFailed(
            f"{file}: its bytes are not text in UTF-8: write the passphrase in UTF-8"
        ) from None
    return lines[0] if lines else ""
