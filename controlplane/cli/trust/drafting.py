"""``trust draft-root`` and ``trust draft-targets``: what comes next, for the holders of the keys to sign."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from fleetwright.v1.trust_service_pb2 import GetTrustRequest

from controlplane.cli.calling import calling
from controlplane.cli.connection import Client
from controlplane.cli.failures import CommandFailed
from controlplane.cli.output import Output
from controlplane.cli.trust.app import app
from controlplane.cli.trust.files import write_new
from controlplane.cli.trust.telling import lines_of
from controlplane.cli.values import DURATION_HELP, duration
from controlplane.trust.tuf import drafting
from controlplane.trust.tuf.drafting import RoleChange, Told, read_public_key
from controlplane.trust.tuf.roles import RepositoryError

LONGEST: Final = timedelta(days=3650)
_SHORTEST: Final = timedelta(days=1)


@dataclass(frozen=True)
class Drafted:
    """What is printed of a draft."""

    path: Path
    told: Told
    key_document: Path | None = None

    @property
    def name(self) -> str:
        """What ``-o name`` prints."""
        return str(self.path)

    def as_dict(self) -> dict[str, Any]:
        """Return what programs get."""
        return {
            "file": self.name,
            "keyDocument": "" if self.key_document is None else str(self.key_document),
            "role": self.told.role,
            "version": self.told.version,
            "expireTime": self.told.expires.isoformat().replace("+00:00", "Z"),
        }


Out = Annotated[Path, typer.Option(metavar="FILE", help="File to write the draft to.")]
For = Annotated[
    str, typer.Option("--for", metavar="DURATION", help=f"How long it holds from now on. {DURATION_HELP}")
]


@app.command("draft-root")
@calling
def draft_root(
    client: Client,
    output: Output,
    out: Out,
    life: For = "365d",
    add: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE=FILE.pub", help="Key that signs for a role from now on; repeatable."),
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE=KEY-ID", help="Key that signs for it no more; repeatable."),
    ] = None,
    threshold: Annotated[
        list[str] | None, typer.Option(metavar="ROLE=N", help="How many of its keys must sign; repeatable.")
    ] = None,
) -> None:
    """Draft the next root: with a later end, and other keys of the roles where you say so.

    The roles are root, targets, snapshot and timestamp. It needs as many signatures as the root before it
    demands, and as many as it demands itself. Where it gives targets other keys, draft-targets too, have that
    signed by these, and install both at once.

    \b
    Examples:
      fleetwright trust draft-root --out root-2.json
      fleetwright trust draft-root --out root-2.json --add root=eve.pem.pub --drop root=4318f7e1
      fleetwright trust draft-root --out root-2.json --add timestamp=new.pem.pub --drop timestamp=93dcef64
    """
    now, until = output.now, _until(output.now, life)
    changes = _changes(add or [], drop or [], threshold or [])
    current = client.trust.GetTrust(GetTrustRequest())
    try:
        document = drafting.next_root(current.root, changes, until)
        told = drafting.tell(document)
    except RepositoryError as error:
        raise CommandFailed(str(error)) from None
    write_new(out, document)
    _print(output, Drafted(out, told), now)


@app.command("draft-targets")
@calling
def draft_targets(
    client: Client,
    output: Output,
    out: Out,
    life: For = "365d",
    channel: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE.pub", help="Channel to add, or to give another key to; repeatable."),
    ] = None,
    renew_attesters: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Let the keys that attest hold on; writes their document here."),
    ] = None,
    attesters_for: Annotated[
        str, typer.Option(metavar="DURATION", help="How long they hold from now on, with --renew-attesters.")
    ] = "730d",
) -> None:
    """Draft the next targets metadata: with a later end, more channels, or keys that attest for longer.

    A channel's private key has to be on the server, in release-trust/keys, when the draft is installed:
    make it there with `fleetwright trust key`.

    \b
    Examples:
      fleetwright trust draft-targets --out targets-2.json
      fleetwright trust draft-targets --out targets-2.json --channel canary=channel-canary.pem.pub
      fleetwright trust draft-targets --out targets-2.json --renew-attesters attestation-keys.json
    """
    now, until = output.now, _until(output.now, life)
    channels = {name: _public(file) for name, file in _pairs(channel or [], "--channel")}
    current = client.trust.GetTrust(GetTrustRequest())
    keys: bytes | None = None
    try:
        if renew_attesters is not None:
            keys = drafting.longer_attesters(current.key_document, _until(now, attesters_for))
        document = drafting.next_targets(current.targets, channels, keys, until)
        told = drafting.tell(document)
    except RepositoryError as error:
        raise CommandFailed(str(error)) from None
    if renew_attesters is not None and keys is not None:
        write_new(renew_attesters, keys)
    write_new(out, document)
    _print(output, Drafted(out, told, renew_attesters), now)


def _print(output: Output, drafted: Drafted, now: datetime) -> None:
    if not output.for_people:
        output.document(drafted, [drafted])
        return
    for line in lines_of(drafted.told, now):
        output.text(line)
    document = "" if drafted.key_document is None else f" --key-document {drafted.key_document}"
    output.text(f"drafted:              {drafted.path}")
    output.text(f"each holder of a key: fleetwright trust sign {drafted.path} --key KEY")
    output.text(f"at last:              fleetwright trust install {drafted.path}{document}")


def _until(now: datetime, life: str) -> datetime:
    length = duration(life, "--for")
    if not _SHORTEST <= length <= LONGEST:
        raise typer.BadParameter(
            f"{life!r}: a document holds from {_SHORTEST.days} to {LONGEST.days} days", param_hint="--for"
        )
    return (now + length).replace(microsecond=0)


def _changes(add: list[str], drop: list[str], threshold: list[str]) -> dict[str, RoleChange]:
    added = [(role, _public(file)) for role, file in _pairs(add, "--add")]
    dropped = _pairs(drop, "--drop")
    needed = [(role, _number(text)) for role, text in _pairs(threshold, "--threshold")]
    roles = dict.fromkeys(role for role, _ in (*added, *dropped, *needed))
    return {
        role: RoleChange(
            tuple(key for name, key in added if name == role),
            tuple(key_id for name, key_id in dropped if name == role),
            next((number for name, number in reversed(needed) if name == role), None),
        )
        for role in roles
    }


def _pairs(texts: Iterable[str], option: str) -> list[tuple[str, str]]:
    found = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise typer.BadParameter(f"{text!r}: write NAME=VALUE", param_hint=option)
        found.append((name, value))
    return found


def _public(file: str) -> Any:
    try:
        return read_public_key(Path(file))
    except RepositoryError as error:
        raise CommandFailed(str(error)) from None


def _number(text: str) -> int:
    if not text.isdecimal() or len(text) > 2:
        raise typer.BadParameter(f"{text!r}: write how many keys, such as 2", param_hint="--threshold")
    return int(text)
