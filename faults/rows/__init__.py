"""The faults, one file for each kind; ``ALL`` is the table's order."""

from __future__ import annotations

from faults.faults import Fault
from faults.rows import (
    agent_kills,
    clones,
    databases,
    disks,
    fleets,
    networks,
    pipeline_kills,
    pipeline_stores,
    processes,
    server_kills,
    standstills,
    worker_kills,
)

_KINDS = (
    *(server_kills, agent_kills, networks, standstills, clones, disks, fleets),
    *(databases, processes, worker_kills, pipeline_kills, pipeline_stores),
)

ALL: dict[str, Fault] = {fault.name: fault for kind in _KINDS for fault in kind.FAULTS}
