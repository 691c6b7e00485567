"""A server as a client meets it: its address, its TLS, its answers, its clock, its other ports."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
from fleetwright.client import CERTIFICATE_FILE, Identity
from fleetwright.errors import AddressError, Failure, IdentityError
from fleetwright.v1 import server_service_pb2 as pb2

import controlplane
from controlplane.cli.calling import explain
from controlplane.cli.connection import Client, Target
from controlplane.cli.doctor.certificates import IDENTITY_SOON
from controlplane.cli.doctor.findings import Finding, fail, ok, skip, warn
from controlplane.cli.failures import CommandFailed
from controlplane.cli.server_questions import lease_of, summary
from controlplane.cli.values import instant, shown_duration
from controlplane.settings import Settings
from controlplane.trust.certificates import validity
from controlplane.trust.layout import DataFolderError

PATIENCE = timedelta(seconds=5)

CLOCK_SOON = timedelta(seconds=30)
"""Deadlines shift by it; nothing else does yet."""

CLOCK_WRONG = timedelta(minutes=5)
"""By how much certificates begin before their issue (``trust.authority.BACKDATE``)."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports beside the one for administrators; ``certain`` is False where they are the defaults."""

    agents: int
    enrollment: int
    health: int
    health_host: str
    certain: bool


def server(target: Target, settings: Settings, now: datetime, timeout: timedelta) -> Iterator[Finding]:
    """Check everything about the server of ``target`` that can be seen from here."""
    host, port = _split(target.server)
    usable = list(_identity(target.identity, now))
    yield from usable
    addresses = _resolve(host, port)
    if isinstance(addresses, Finding):
        yield addresses
        yield skip("admin port", "not tried, for the name is not known")
        return
    yield ok("name", f"{host} is {', '.join(dict.fromkeys(addresses))}")
    refused = _connect(host, port)
    if refused:
        text = f"{target.server}: {refused}: is the server running, and does the network let through?"
        yield fail("admin port", text)
        yield skip("server", "not asked, for its port cannot be reached")
        return
    yield ok("admin port", f"{target.server} takes connections")
    if _can_call(usable):
        yield from _answers(target, timeout)
    else:
        yield skip("server", "not asked, for the identity cannot be used")
    yield from _other_ports(host, _ports_of(target, host, settings))


def _can_call(findings: list[Finding]) -> bool:
    return all(finding.level.value != "FAIL" for finding in findings)


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _identity(folder: Path, now: datetime) -> Iterator[Finding]:
    try:
        Identity.load(folder)
        held = validity(folder / CERTIFICATE_FILE)
    except (IdentityError, DataFolderError) as error:
        yield fail("identity", str(error))
        return
    left = held.end - now
    until = f"{folder}: {left.days} days left"
    if now < held.begin:
        yield fail("identity", f"{folder}: begins at {held.begin:%Y-%m-%d %H:%M:%SZ}: is this clock right?")
    elif left <= timedelta():
        yield fail("identity", f"{folder}: ended at {held.end:%Y-%m-%d %H:%M:%SZ}: have another one issued")
    elif left < IDENTITY_SOON:
        yield warn("identity", f"{until}: have the next one issued before it ends")
    else:
        yield ok("identity", until)


def _resolve(host: str, port: int) -> list[str] | Finding:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return fail(
            "name", f"{host}: {error.strerror}: check the address, and the name service of this machine"
        )
    return [str(address[4][0]) for address in found]


def _connect(host: str, port: int) -> str:
    """Return why no connection can be made; empty where one can."""
    try:
        socket.create_connection((host, port), PATIENCE.total_seconds()).close()
    except TimeoutError:
        return f"no answer in {PATIENCE.total_seconds():.0f} s"
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _answers(target: Target, timeout: timedelta) -> Iterator[Finding]:
    with Client(target, timeout) as client:
        try:
            sent = datetime.now(UTC)
            # The first answer carries a handshake: only the second one's round trip says something of clocks.
            client.server.GetServerInfo(pb2.GetServerInfoRequest())
            sent = datetime.now(UTC)
            info = client.server.GetServerInfo(pb2.GetServerInfoRequest())
            came = datetime.now(UTC)
            processes = client.server.ListProcesses(pb2.ListProcessesRequest()).processes
        except grpc.RpcError as error:
            yield fail("server", str(explain(Failure.of(error), client)))
            return
        except (AddressError, IdentityError, CommandFailed) as error:
            yield fail("server", str(error))
            return
    yield ok("tls", f"the server's certificate is for this name, and descends from {target.identity}/ca.pem")
    since = shown_duration(timedelta(seconds=int((came - instant(info.start_time)).total_seconds())))
    yield ok(
        "server",
        f"{info.trust_domain}, schema {info.schema_version}, up for {since}, {info.sessions} of "
        f"{info.max_agents} agents connected",
    )
    yield _processes(processes)
    yield ok("role", f"this identity is {info.caller}")
    yield _version(info.version)
    yield clock_offset(sent, came, instant(info.server_time))


def _processes(processes: Sequence[pb2.Process]) -> Finding:
    found = summary(processes)
    if any(lease_of(process) == "lapsed" for process in processes):
        return warn("processes", f"{found}: no worker clears these away: is one running?")
    again = sum(process.restarts for process in processes)
    if again:
        return warn("processes", f"{found}; parts were started again {again} times: the log says why")
    return ok("processes", found)


def _version(theirs: str) -> Finding:
    ours = controlplane.VERSION
    if theirs == ours:
        return ok("version", f"{theirs}, as this command")
    older, newer = ("server", "command") if _order(theirs) < _order(ours) else ("command", "server")
    return warn(
        "version", f"the server has {theirs}, this command {ours}: bring the {older} to that of the {newer}"
    )


def _order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def clock_offset(sent: datetime, came: datetime, theirs: datetime) -> Finding:
    """Judge the server's clock by the middle of a round trip."""
    offset = theirs - (sent + (came - sent) / 2)
    text = (
        f"the server's clock is {shown_duration(abs(offset))} {'ahead' if offset > timedelta() else 'behind'}"
    )
    if abs(offset) >= CLOCK_WRONG:
        return fail("clock", f"{text}: certificates are refused by such clocks: set the wrong one")
    if abs(offset) >= CLOCK_SOON:
        return warn("clock", f"{text}: let a time service keep both right")
    return ok("clock", text)


def _ports_of(target: Target, host: str, settings: Settings) -> Ports | str:
    defaults = {
        name: Settings.model_fields[f"{name}_port"].default for name in ("admin", "agents", "enrollment")
    }
    admin = _split(target.server)[1]
    if host in {"localhost", "127.0.0.1", "::1", socket.gethostname()} and admin == settings.admin_port:
        health = settings.health_bind_host
        here = "127.0.0.1" if health in {"0.0.0.0", "::"} else health  # noqa: S104 # compared, not bound
        return Ports(settings.agents_port, settings.enrollment_port, settings.health_port, here, certain=True)
    if admin == defaults["admin"]:
        return Ports(defaults["agents"], defaults["enrollment"], 0, "", certain=False)
    return f"the server's other ports are not known from here (its admin port is {admin})"


def _other_ports(host: str, ports: Ports | str) -> Iterator[Finding]:
    if isinstance(ports, str):
        yield skip("other ports", ports)
        return
    for name, port in (("agents", ports.agents), ("enrolment", ports.enrollment)):
        refused = _connect(host, port)
        if not refused:
            yield ok(f"{name} port", f"{host}:{port} takes connections")
        elif ports.certain:
            yield fail(
                f"{name} port", f"{host}:{port}: {refused}: no agent gets in there; look at the server's log"
            )
        else:
            yield warn(
                f"{name} port",
                f"{host}:{port}: {refused}: agents need it, or another port in its place",
            )
    if ports.certain and ports.health:
        yield _health(ports.health_host, ports.health)
    else:
        yield skip("health", "it is for the server's own machine")


def _health(host: str, port: int) -> Finding:
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE.total_seconds())
    try:
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return fail(
            "health", f"{host}:{port}: {error}: probes and metrics get nothing; look at the server's log"
        )
    finally:
        connection.close()
    if status == http.client.OK:
        return ok("health", f"{host}:{port} says that the server is ready")
    return warn(
        "health", f"{host}:{port} says that the server is not ready ({status}): it starts, or it stops"
    )
