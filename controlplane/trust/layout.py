"""Where things lie in a data folder, and reading them back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from controlplane.trust.authority import BrokenAuthority, CertificateAuthority


class DataFolderError(Exception):
    """A data folder cannot be used as asked; the text names the path and the remedy."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The names of files in the data folder ``root``.

    ``trust/`` holds what the server needs and must never leave the machine;
    ``identities/`` holds one folder for each operator or integrator, to be carried
    to whoever it names.
    """

    root: Path

    @property
    def trust(self) -> Path:
        """Roots and server certificates."""
        return self.root / "trust"

    @property
    def identities(self) -> Path:
        """Identities of operators and integrators."""
        return self.root / "identities"

    @property
    def database(self) -> Path:
        """The embedded database; its log lies beside it."""
        return self.root / DATABASE

    @property
    def release_trust(self) -> Path:
        """Online keys and first metadata of the package repository, from ``fleetwright trust init``."""
        return self.root / "release-trust"

    @property
    def unfinished(self) -> Path:
        """What ``init`` has written but not yet put in place; gone once it is done."""
        return self.root / ".init"

    def identity(self, kind: str, name: str) -> Path:
        """The folder of one identity: ``key.pem``, ``cert.pem`` and ``ca.pem``."""
        return self.identities / f"{kind}-{name}"


DATABASE = "fleetwright.db"
DEB_ORIGIN = "deb-origin.asc"
"""In the folder of the release trust: the OpenPGP key that .debs are signed with. It may be missing."""
AGENTS_ROOT = "agents-root"
OPERATORS_ROOT = "operators-root"
SERVER_KEY = "server.key"
SERVER_AGENTS = "server-agents.pem"
SERVER_OPERATORS = "server-operators.pem"


@dataclass(frozen=True, slots=True)
class ServerTrust:
    """All that a server needs to prove who it is and to judge who calls.

    The agents' root signs agents and the server's chain for the listeners of agents
    and of enrolment; the operators' root signs operators, integrators and the chain
    of the admin listener. A chain is the leaf and its root, in PEM.
    """

    agents: CertificateAuthority
    operators: CertificateAuthority
    server_key_pem: bytes
    agents_chain_pem: bytes
    operators_chain_pem: bytes

    @property
    def trust_domain(self) -> str:
        """The trust domain that both roots name."""
        return self.agents.trust_domain


def load(folder: Path) -> ServerTrust:
    """Read the trust of a data folder.

    Raises ``DataFolderError`` where it was never made, is broken, or cannot be read.
    """
    trust = Layout(folder).trust
    if not trust.is_dir():
        raise DataFolderError(
            f"{folder}: no data folder of Fleetwright (no {trust.name}/ in it): run `fleetwright init` first"
        )
    agents, operators = load_authority(trust, AGENTS_ROOT), load_authority(trust, OPERATORS_ROOT)
    if agents.trust_domain != operators.trust_domain:
        raise DataFolderError(
            f"{trust}: the agents' root is of trust domain {agents.trust_domain!r}, "
            f"the operators' root of {operators.trust_domain!r}: put back the pair that belongs together"
        )
    return ServerTrust(
        agents=agents,
        operators=operators,
        server_key_pem=read(trust / SERVER_KEY),
        agents_chain_pem=read(trust / SERVER_AGENTS),
        operators_chain_pem=read(trust / SERVER_OPERATORS),
    )


def load_authority(trust: Path, name: str) -> CertificateAuthority:
    """Read one root of the folder ``trust``. Raises ``DataFolderError``."""
    certificate = trust / f"{name}.pem"
    try:
        return CertificateAuthority.load(read(certificate), read(trust / f"{name}.key"))
    except BrokenAuthority as error:
        raise DataFolderError(f"{certificate}: {error}: put back the file from a backup") from error


def read(path: Path) -> bytes:
    """Read a file of the data folder. Raises ``DataFolderError``."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataFolderError(
            f"{path}: {error.strerror}: put it back from a backup, or let this user read it"
        ) from error
