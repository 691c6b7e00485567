"""What is known of a process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """One process of the installation; instants are microseconds.

    ``part`` is its name under a supervisor, "gateway-1" for example, with the supervisor's
    own id before a slash; empty where it has none. ``addresses`` are host:port by listener.
    ``restarts`` is how often its supervisor has started the part again.
    """

    process_id: str
    roles: tuple[str, ...]
    host: str
    pid: int
    part: str
    start_time: int
    lease_expire_time: int
    addresses: Mapping[str, str]
    version: str
    restarts: int
