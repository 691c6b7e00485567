"""The faults, one file for each kind; ``ALL`` is the table's order."""

from __future__ import annotations

from faults.faults import Fault
from faults.rows import agent_kills, databases, networks, server_kills, standstills

ALL: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        *server_kills.FAULTS,
        *agent_kills.FAULTS,
        *networks.FAULTS,
        *standstills.FAULTS,
        *databases.FAULTS,
    )
}
