"""``trust init`` and ``trust key``: keys that did not exist before."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from controlplane.cli.calling import calling
from controlplane.cli.failures import CommandFailed, Exit
from controlplane.cli.output import Output
from controlplane.cli.trust.app import app
from controlplane.cli.trust.files import new_passphrase, write_new
from controlplane.settings import ClientSettings
from controlplane.trust.keys import SUFFIX, SigningKey
from controlplane.trust.layout import DEB_ORIGIN, Layout
from controlplane.trust.tuf.ceremony import Initialised, initialise
from controlplane.trust.tuf.drafting import public_key_text
from controlplane.trust.tuf.roles import Expiries, RepositoryError, Thresholds


@dataclass(frozen=True)
class _Made:
    """What is printed of the keys that were made."""

    made: Initialised
    thresholds: Thresholds
    deb_fingerprint: str = ""

    @property
    def name(self) -> str:
        return str(self.made.trusted_root)

    def as_dict(self) -> dict[str, Any]:
        return {
            "offline": str(self.made.offline),
            "online": str(self.made.online),
            "offlineKeys": [str(path) for path in self.made.offline_keys],
            "trustedRoot": str(self.made.trusted_root),
            "channels": list(self.made.state.channels),
            "debFingerprint": self.deb_fingerprint,
            "thresholds": {
                "root": f"{self.thresholds.root} of {self.thresholds.root_keys}",
                "targets": f"{self.thresholds.targets} of {self.thresholds.targets_keys}",
            },
        }


@app.command("init")
@calling
def init(
    output: Output,
    offline: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder to make for the offline keys, to carry away.")
    ],
    online: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder to make for the server. [default: DATA-DIR/release-trust]"
        ),
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Data folder of the server on this machine.")
    ] = None,
    channel: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Channel to release in; repeatable. [default: stable, beta]"),
    ] = None,
    root: Annotated[
        str, typer.Option(metavar="N/KEYS", help="How many of how many keys sign for the role root.")
    ] = "2/3",
    targets: Annotated[
        str, typer.Option(metavar="N/KEYS", help="How many of how many keys sign for the role targets.")
    ] = "2/3",
    deb_signer: Annotated[
        str,
        typer.Option(
            metavar="'NAME <MAIL>'",
            help="Make an OpenPGP key of this name too, which signs .debs. Without one they carry no such "
            "signature, and say so.",
        ),
    ] = "",
    encrypt: Annotated[
        bool, typer.Option("--encrypt", help="Ask for a passphrase, and encrypt the offline keys with it.")
    ] = False,
    passphrase_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Encrypt them with the passphrase on this file's first line."),
    ] = None,
) -> None:
    """Make the keys and the first metadata of a package repository. Needs no server; overwrites nothing.

    \b
    Examples:
      fleetwright trust init --offline /media/usb/fleetwright-keys --data-dir /var/lib/fleetwright
      fleetwright trust init --offline ./offline --online ./online --root 1/1 --targets 1/1 --channel stable
    """
    thresholds = _thresholds(root, targets)
    try:
        made = initialise(
            offline,
            online or Layout(data_dir or ClientSettings().data_dir).release_trust,
            now=datetime.now(UTC),
            thresholds=thresholds,
            expiries=Expiries(),
            channels=channel or ["stable", "beta"],
            passphrase=new_passphrase(encrypt, passphrase_file),
        )
    except RepositoryError as error:
        raise CommandFailed(str(error)) from None
    fingerprint = _deb_key(made.online, deb_signer) if deb_signer else ""
    what = _Made(made, thresholds, fingerprint)
    _print(output, what, encrypted=encrypt or passphrase_file is not None)


def _deb_key(online: Path, user_id: str) -> str:
    """Make the key that signs .debs; returns its fingerprint."""
    # Not at the top: nobody else needs OpenPGP.
    from controlplane.packaging.signing.keys import create_key
    from controlplane.packaging.signing.states import SigningFailed

    try:
        return create_key(online / DEB_ORIGIN, user_id).fingerprint
    except SigningFailed as error:
        raise CommandFailed(
            f"--deb-signer: {error.message}; all other keys are made: remove both folders, and begin again"
        ) from None


@dataclass(frozen=True)
class _Key:
    """What is printed of a key."""

    path: Path
    public: Path
    key_id: str

    @property
    def name(self) -> str:
        return str(self.path)

    def as_dict(self) -> dict[str, Any]:
        return {"key": self.name, "public": str(self.public), "keyId": self.key_id}


@app.command("key")
@calling
def key(
    output: Output,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to make for the private key.")],
    encrypt: Annotated[
        bool, typer.Option("--encrypt", help="Ask for a passphrase, and encrypt the key with it.")
    ] = False,
    passphrase_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Encrypt it with the passphrase on this file's first line."),
    ] = None,
) -> None:
    """Make a key, and beside it FILE.pub with its public half, which drafts take. Needs no server.

    A key of an offline role is made where it is to stay. One that the server signs with (snapshot, timestamp,
    a channel) is made in release-trust/keys of its data folder, unencrypted, under any name that ends in
    .pem: it is used from the moment that the root or the targets metadata name it.

    \b
    Examples:
      fleetwright trust key /media/usb/root-4.pem --encrypt
      fleetwright trust key /var/lib/fleetwright/release-trust/keys/channel-canary.pem
    """
    if file.suffix != SUFFIX:
        raise typer.BadParameter(f"{file}: let its name end in {SUFFIX}", param_hint="FILE")
    made, public = SigningKey.generate(), file.with_name(f"{file.name}.pub")
    secret = new_passphrase(encrypt, passphrase_file)
    if public.exists():
        raise CommandFailed(f"{public}: exists already: choose another name")
    made.write(file, secret)
    write_new(public, public_key_text(made.public).encode())
    found = _Key(file, public, made.key_id)
    if not output.for_people:
        output.document(found, [found])
        return
    output.text(f"key:    {file}{'' if secret is not None else ', not encrypted'}")
    output.text(f"public: {public}")
    output.text(f"id:     {made.key_id}")


def _thresholds(root: str, targets: str) -> Thresholds:
    found: dict[str, int] = {}
    for name, text in (("root", root), ("targets", targets)):
        needed, slash, keys = text.partition("/")
        if not (slash and needed.isdecimal() and keys.isdecimal()) or len(text) > 8:
            raise typer.BadParameter(f"{text!r}: write N/KEYS, such as 2/3", param_hint=f"--{name}")
        found |= {name: int(needed), f"{name}_keys": int(keys)}
    try:
        return Thresholds(**found)
    except RepositoryError as error:
        raise CommandFailed(str(error), Exit.USAGE) from None


def _print(output: Output, what: _Made, *, encrypted: bool) -> None:
    if not output.for_people:
        output.document(what, [what])
        return
    made, thresholds = what.made, what.thresholds
    output.text(f"offline: {made.offline}")
    output.text(f"  root-*.pem      {thresholds.root} of {thresholds.root_keys} sign for the role root")
    output.text(
        f"  targets-*.pem   {thresholds.targets} of {thresholds.targets_keys} sign for the role targets"
    )
    output.text("  Move each key to another person or safe, off this machine, then remove the folder here.")
    if not encrypted:
        output.text("  They are not encrypted: whoever finds a file has the key.")
    output.text(f"online:  {made.online}")
    output.text(
        f"  keys of snapshot, timestamp, the channels {', '.join(made.state.channels)}, and of who attests"
    )
    if what.deb_fingerprint:
        output.text(f"  and the OpenPGP key that signs .debs, {what.deb_fingerprint}")
    output.text("  It belongs on the server, open to its user alone; back it up as you do the data folder.")
    output.text(f"trusted root: {made.trusted_root}")
    output.text("  Agents get it when they enrol; auditors, by another way than the bundles.")
