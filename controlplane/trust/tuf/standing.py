"""How the roles of a repository stand: versions, ends, keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from tuf.api.metadata import Role, Signed, Snapshot, Targets, Timestamp

from controlplane.trust.tuf.state import RepositoryState, read

OFFLINE_ROLES: Final = ("root", "targets")
"""The roles whose keys no server has."""


@dataclass(frozen=True, slots=True)
class RoleStanding:
    """One role as it is in force."""

    role: str
    version: int
    expires: datetime
    threshold: int
    key_ids: tuple[str, ...]

    @property
    def offline(self) -> bool:
        """Whether people must sign its next version."""
        return self.role in OFFLINE_ROLES


def standings(state: RepositoryState) -> list[RoleStanding]:
    """Return the four roles of the specification, then the channels. Raises ``RepositoryError``."""
    return list(_standings(state))


def _standings(state: RepositoryState) -> Iterator[RoleStanding]:
    targets = read(Targets, state.targets).signed
    top: dict[str, Signed] = {
        "root": state.root,
        "targets": targets,
        "snapshot": read(Snapshot, state.snapshot).signed,
        "timestamp": read(Timestamp, state.timestamp).signed,
    }
    for name, signed in top.items():
        yield _standing(name, signed, state.root.roles[name])
    delegated: Mapping[str, Any] = (targets.delegations.roles or {}) if targets.delegations else {}
    for name, content in state.channels.items():
        yield _standing(name, read(Targets, content).signed, delegated[name])


def _standing(name: str, signed: Signed, role: Role) -> RoleStanding:
    return RoleStanding(name, signed.version, signed.expires, role.threshold, tuple(role.keyids))
