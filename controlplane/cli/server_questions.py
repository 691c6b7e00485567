"""``fleetwright server``: what a server says of itself, and which processes it consists of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from fleetwright.v1.server_service_pb2 import (
    GetServerInfoRequest,
    GetServerInfoResponse,
    ListProcessesRequest,
    ListProcessesResponse,
    Process,
    ProcessRole,
)

from controlplane.cli.calling import calling, noun
from controlplane.cli.connection import Client
from controlplane.cli.output import Column, Output, as_dict
from controlplane.cli.values import age, enum_name, shown_duration, shown_time

app = noun(
    "The server itself: info, processes.\n\n"
    "A server is one process on SQLite, and may be several, on several machines, on PostgreSQL.\n\n"
    "\b\nExamples:\n"
    "  fleetwright server info\n"
    "  fleetwright server processes"
)


@dataclass(frozen=True)
class _Info:
    """What is printed of a server."""

    address: str
    server: GetServerInfoResponse
    processes: ListProcessesResponse

    @property
    def name(self) -> str:
        return self.address

    def as_dict(self) -> dict[str, Any]:
        return {"server": as_dict(self.server), **as_dict(self.processes)}


_LINES: list[Column[_Info]] = [
    Column("Address", lambda info: info.address),
    Column("Version", lambda info: info.server.version),
    Column("Trust domain", lambda info: info.server.trust_domain),
    Column("Serving since", lambda info: shown_time(info.server, "start_time")),
    Column("Its clock", lambda info: shown_time(info.server, "server_time")),
    Column("Database schema", lambda info: info.server.schema_version),
    Column("Processes", lambda info: summary(info.processes.processes)),
    Column("You are", lambda info: info.server.caller),
]


@app.command("info")
@calling
def info(client: Client, output: Output) -> None:
    """Show what the server is, as the process that answers knows it.

    Example: fleetwright server info
    """
    found = client.server.GetServerInfo(GetServerInfoRequest())
    processes = client.server.ListProcesses(ListProcessesRequest())
    output.one(_Info(client.target.server, found, processes), _LINES)


@app.command("processes")
@calling
def processes(client: Client, output: Output) -> None:
    """List the processes of the server: their roles, where they run, and how long their leases still are.

    \b
    Examples:
      fleetwright server processes
      fleetwright server processes -o wide
    """
    answer = client.server.ListProcesses(ListProcessesRequest())
    output.items(answer, "processes", _columns(datetime.now(UTC)), "no process has a lease")


def summary(processes: Collection[Process]) -> str:
    """Return how many processes there are of each kind, and how many leases lapsed: for people."""
    kinds = Counter(roles_of(process) for process in processes if lease_of(process) != "lapsed")
    lapsed = sum(lease_of(process) == "lapsed" for process in processes)
    found = [f"{number} {kind}" for kind, number in sorted(kinds.items())]
    return "; ".join([*found, *([f"{lapsed} lapsed"] if lapsed else [])])


def roles_of(process: Process) -> str:
    """Return the roles of a process, for people."""
    return ",".join(enum_name(ProcessRole.DESCRIPTOR, role).lower() for role in process.roles)


def lease_of(process: Process) -> str:
    """Return how long the lease of a process still is, for people."""
    left = process.lease_left.ToTimedelta()
    return shown_duration(left) if left > timedelta() else "lapsed"


def _columns(now: datetime) -> Sequence[Column[Process]]:
    return (
        Column("PROCESS", lambda process: process.name.removeprefix("processes/")),
        Column("ROLES", roles_of),
        Column("HOST", lambda process: process.host),
        Column("PID", lambda process: str(process.pid)),
        Column("PART", lambda process: process.part),
        Column("AGE", lambda process: age(process, "start_time", now)),
        Column("LEASE", lease_of, style=lambda value: "red" if value == "lapsed" else ""),
        Column("RESTARTS", lambda process: str(process.restarts)),
        Column("VERSION", lambda process: process.version, wide=True),
        Column("LISTENS ON", _addresses, wide=True),
    )


def _addresses(process: Process) -> str:
    return " ".join(f"{name}={process.addresses[name]}" for name in sorted(process.addresses))
