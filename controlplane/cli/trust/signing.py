"""``trust tell`` and ``trust sign``: where a key is, away from every server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from controlplane.cli.calling import calling
from controlplane.cli.failures import CommandFailed
from controlplane.cli.output import Output
from controlplane.cli.trust.app import app
from controlplane.cli.trust.files import passphrase_in, read_document, replace
from controlplane.cli.trust.telling import lines_of
from controlplane.trust.keys import SigningKey, load_key
from controlplane.trust.tuf.drafting import Told, tell
from controlplane.trust.tuf.roles import RepositoryError
from controlplane.trust.tuf.rotation import add_signature

Document = Annotated[Path, typer.Argument(metavar="FILE", help="A draft, with the signatures so far.")]


@dataclass(frozen=True)
class Read:
    """What is printed of a document."""

    path: Path
    told: Told

    @property
    def name(self) -> str:
        """What ``-o name`` prints."""
        return str(self.path)

    def as_dict(self) -> dict[str, Any]:
        """Return what programs get."""
        told = self.told
        roles = {
            name: {"threshold": number, "keyIds": list(ids)} for name, (number, ids) in told.roles.items()
        }
        return {
            "file": self.name,
            "role": told.role,
            "version": told.version,
            "expireTime": told.expires.isoformat().replace("+00:00", "Z"),
            "roles": roles,
            "notes": list(told.notes),
            "signedByOwnKeys": list(told.signed_by),
            "signedByOthers": list(told.unknown_signers),
        }


@app.command("tell")
@calling
def tell_(output: Output, document: Document) -> None:
    """Say what a draft says, and who has signed it. Needs no server.

    \b
    Example:
      fleetwright trust tell root-2.json
    """
    _print(output, Read(document, _told(read_document(document))))


@app.command("sign")
@calling
def sign(
    output: Output,
    document: Document,
    key: Annotated[list[Path], typer.Option(metavar="FILE", help="Private key to sign with; repeatable.")],
    encrypted: Annotated[
        bool, typer.Option("--encrypted", help="Ask for the passphrase of the keys.")
    ] = False,
    passphrase_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The passphrase is on this file's first line.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Add a signature to a draft, in its own file. Needs no server: run it where the key is.

    Shows what the document says and asks before it signs on a terminal; elsewhere it needs --yes. Signing
    twice with one key is once. Then carry the file to the next holder of a key.

    \b
    Examples:
      fleetwright trust sign root-2.json --key /media/usb/root-1.pem
      fleetwright trust sign targets-2.json --key ./targets-3.pem --encrypted
    """
    content = read_document(document)
    _confirm(output, Read(document, _told(content)), yes=yes)
    secret = _passphrase(encrypted, passphrase_file)
    for path in key:
        content = _signed(content, load_key(path, secret))
    replace(document, content)
    _print(output, Read(document, _told(content)))


def _signed(content: bytes, key: SigningKey) -> bytes:
    try:
        return add_signature(content, key)
    except RepositoryError as error:
        raise CommandFailed(str(error)) from None


def _told(content: bytes) -> Told:
    try:
        return tell(content)
    except RepositoryError as error:
        raise CommandFailed(str(error)) from None


def _confirm(output: Output, read: Read, *, yes: bool) -> None:
    if yes:
        return
    if not (output.errors.is_terminal and output.for_people):
        raise CommandFailed(f"{read.path}: read it with `fleetwright trust tell`, and sign it with --yes")
    for line in lines_of(read.told, output.now):
        output.note(line)
    typer.confirm("Sign this?", abort=True, err=True)


def _passphrase(encrypted: bool, file: Path | None) -> str | None:
    if file is not None:
        return passphrase_in(file)
    return str(typer.prompt("Passphrase", hide_input=True, err=True)) if encrypted else None


def _print(output: Output, read: Read) -> None:
    if not output.for_people:
        output.document(read, [read])
        return
    for line in lines_of(read.told, output.now):
        output.text(line)
