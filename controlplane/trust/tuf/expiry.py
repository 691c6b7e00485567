"""What ends soon. Agents refuse metadata that has ended: each line is a fleet that stops if nobody acts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from fleetwright.verify.keys import AttestationKeys
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from controlplane.trust.tuf.publishing import is_due
from controlplane.trust.tuf.roles import Expiries
from controlplane.trust.tuf.state import RepositoryState, read

OFFLINE_WARNING: Final = timedelta(days=60)
"""How long before the end of what needs people with offline keys: they have to be brought together."""

_OVERDUE: Final = 2
"""Online metadata is worth a word when half of the time in which it should have been signed again is over."""


@dataclass(frozen=True, slots=True)
class ExpiryWarning:
    """Something that ends soon, or has ended."""

    role: str
    expires: datetime
    left: timedelta
    """Negative where it has ended."""
    remedy: str

    def __str__(self) -> str:
        when = f"ended {-self.left} ago" if self.left <= timedelta() else f"ends in {self.left}"
        return f"{self.role}: {when}, at {self.expires}: {self.remedy}"


def warnings(
    state: RepositoryState, now: datetime, expiries: Expiries, attesters: AttestationKeys | None = None
) -> list[ExpiryWarning]:
    """Return what ends soon, most urgent first. Raises ``RepositoryError`` where nothing can be read."""
    found = [*_offline(state, now), *_online(state, now, expiries), *_attesters(attesters, now)]
    return sorted(found, key=lambda warning: warning.left)


def _offline(state: RepositoryState, now: datetime) -> Iterator[ExpiryWarning]:
    ends = {
        "root": read(Root, state.roots[-1]).signed.expires,
        "targets": read(Targets, state.targets).signed.expires,
    }
    for role, expires in ends.items():
        if expires - now < OFFLINE_WARNING:
            yield ExpiryWarning(role, expires, expires - now, "sign a new version with the offline keys")


def _online(state: RepositoryState, now: datetime, expiries: Expiries) -> Iterator[ExpiryWarning]:
    ends = {
        "snapshot": (read(Snapshot, state.snapshot).signed.expires, expiries.snapshot),
        "timestamp": (read(Timestamp, state.timestamp).signed.expires, expiries.timestamp),
    }
    for name, content in state.channels.items():
        ends[name] = (read(Targets, content).signed.expires, expiries.channel)
    for role, (expires, life) in ends.items():
        if is_due(expires, life / _OVERDUE, now):
            remedy = "the server should have signed it again: look whether it runs and has its online keys"
            yield ExpiryWarning(role, expires, expires - now, remedy)


def _attesters(attesters: AttestationKeys | None, now: datetime) -> Iterator[ExpiryWarning]:
    for attester in attesters.attesters if attesters is not None else ():
        if attester.expires - now < OFFLINE_WARNING:
            purposes = ", ".join(sorted(purpose.value for purpose in attester.purposes))
            role = f"key {attester.key.key_id[:16]} ({purposes})"
            remedy = "release a new document of attestation keys with the offline keys of targets"
            yield ExpiryWarning(role, attester.expires, attester.expires - now, remedy)
