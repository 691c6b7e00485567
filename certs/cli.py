"""The `fleetwright-certs` command."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from certs.authority import (
    DEFAULT_HOSTS,
    DEFAULT_TRUST_DOMAIN,
    Identity,
    Root,
    issue_client,
    issue_server,
    make_root,
    spiffe_id,
)
from certs.bad import BAD_CERTIFICATES
from certs.folder import AlreadyThereError, IdentityFolder
from certs.requests import BAD_REQUESTS

_NOTICE = "For development and tests only: the keys lie unencrypted beside the certificates."
_KINDS = [*BAD_CERTIFICATES, *BAD_REQUESTS]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Make development identities, and bad ones for tests. Not for a fleet that matters: "
    "there, `fleetwright init` and `fleetwright identities` make them.",
)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write to; made where missing.")]
TrustDomain = Annotated[str, typer.Option(help="Trust domain of the SPIFFE ids.")]
Force = Annotated[bool, typer.Option("--force", help="Replace files that exist.")]


@app.command(
    epilog="Examples:  fleetwright-certs make /tmp/identities  |  "
    "fleetwright-certs make /tmp/identities --host fleet.example.com --agent laptop-1 --agent laptop-2"
)
def make(
    folder: Folder,
    trust_domain: TrustDomain = DEFAULT_TRUST_DOMAIN,
    host: Annotated[list[str] | None, typer.Option(help="More names or addresses of the server.")] = None,
    agent: Annotated[list[str] | None, typer.Option(help="Agent ids.  [default: agent-1]")] = None,
    operator: Annotated[list[str] | None, typer.Option(help="Operators.  [default: admin]")] = None,
    integrator: Annotated[list[str] | None, typer.Option(help="Integrators.  [default: integration]")] = None,
    force: Force = False,
) -> None:
    """Make both roots, a server certificate of each, and clients: NAME.key and NAME.pem."""
    now = datetime.now(UTC)
    hosts = list(dict.fromkeys([*DEFAULT_HOSTS, *(host or [])]))
    agents_root = make_root("Fleetwright development agents", now=now)
    operators_root = make_root("Fleetwright development operators", now=now)
    files = _root_files("agents-root", agents_root) | _root_files("operators-root", operators_root)
    files |= _identity_files("server-agents", issue_server(agents_root, hosts, now=now))
    files |= _identity_files("server-admin", issue_server(operators_root, hosts, now=now))
    wanted = [
        (agents_root, "agent", agent or ["agent-1"]),
        (operators_root, "operator", operator or ["admin"]),
        (operators_root, "integrator", integrator or ["integration"]),
    ]
    for root, role, names in wanted:
        for name in names:
            identity = issue_client(root, role, name, now=now, trust_domain=trust_domain)
            files |= _identity_files(f"{role}-{name}", identity)
    _write(folder, files, replace=force)


@app.command(
    epilog="Examples:  fleetwright-certs bad /tmp/identities expired  |  "
    "fleetwright-certs bad /tmp/identities --all --role operator --name mallory. "
    f"Kinds: {', '.join(_KINDS)}."
)
def bad(
    folder: Folder,
    kind: Annotated[str | None, typer.Argument(help="What is to be wrong; see below.")] = None,
    every: Annotated[bool, typer.Option("--all", help="One of each kind.")] = False,
    role: Annotated[str, typer.Option(help="Who it claims to be: agent, operator, integrator.")] = "agent",
    name: Annotated[str, typer.Option(help="Name that it claims.")] = "agent-1",
    trust_domain: TrustDomain = DEFAULT_TRUST_DOMAIN,
    force: Force = False,
) -> None:
    """Make certificates or signing requests that a server must refuse: bad-KIND.key and .pem or .csr.

    They are signed by the root that `make` left in DIR; without one, a fresh root is made first.
    """
    if every == (kind is not None):
        raise ValueError("say which KIND to make, or --all")
    if kind is not None and kind not in _KINDS:
        raise ValueError(f"kind {kind!r}: use one of {', '.join(_KINDS)}")
    now = datetime.now(UTC)
    spiffe_id(role, name, trust_domain)
    files: dict[str, bytes] = {}
    root_name = "agents-root" if role == "agent" else "operators-root"
    root = _read_root(folder, root_name)
    if root is None:
        root = make_root(f"Fleetwright development {root_name.removesuffix('-root')}", now=now)
        files |= _root_files(root_name, root)
    for each in _KINDS if kind is None else [kind]:
        if each in BAD_CERTIFICATES:
            identity = BAD_CERTIFICATES[each](root, role, name, now=now, trust_domain=trust_domain)
            files |= _identity_files(f"bad-{each}", identity)
        else:
            request = BAD_REQUESTS[each](name, trust_domain=trust_domain)
            files |= {f"bad-{each}.key": request.key_pem, f"bad-{each}.csr": request.der}
    _write(folder, files, replace=force)


def main() -> None:
    """Run the command; what the user can mend is one line on standard error and exit status 2."""
    sys.exit(_run(app))


def _run(command: Callable[[], object]) -> int:
    try:
        command()
    except (ValueError, AlreadyThereError) as error:
        typer.echo(f"fleetwright-certs: {error}", err=True)
        return 2
    except OSError as error:
        typer.echo(f"fleetwright-certs: {error.filename}: {error.strerror}", err=True)
        return 1
    return 0


def _read_root(folder: Path, name: str) -> Root | None:
    key, certificate = folder / f"{name}.key", folder / f"{name}.pem"
    if not (key.exists() and certificate.exists()):
        return None
    return Root.from_pem(key.read_bytes(), certificate.read_bytes())


def _root_files(name: str, root: Root) -> dict[str, bytes]:
    return {f"{name}.key": root.key_pem, f"{name}.pem": root.pem}


def _identity_files(name: str, identity: Identity) -> dict[str, bytes]:
    return {f"{name}.key": identity.key_pem, f"{name}.pem": identity.chain_pem}


def _write(folder: Path, files: dict[str, bytes], *, replace: bool) -> None:
    for path in IdentityFolder(folder, replace=replace).write(files):
        typer.echo(path)
    typer.echo(_NOTICE)
