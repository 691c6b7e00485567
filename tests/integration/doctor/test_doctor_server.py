"""What a doctor sees of a server: of one that is well, of one that is not there, and of the wrong one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from fleetwright.v1 import identity_service_pb2, identity_service_pb2_grpc

from controlplane.cli.doctor import folder as checks
from controlplane.cli.doctor.findings import Level
from controlplane.cli.doctor.server import clock_offset
from controlplane.storage import migrate
from controlplane.trust import setup
from controlplane.trust.layout import DATABASE, Layout
from tests.integration.doctor.asking import Answer, Doctor
from tests.integration.transport.doors import ShiftedClock
from tests.support.in_process import LocalSite, serving
from tests.support.process import running
from tests.support.site import HOST, Site

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


@pytest.fixture
async def site(folder: Path) -> AsyncIterator[LocalSite]:
    async with serving(folder) as made:
        yield made


async def asked(doctor: Doctor, site: Site, identity: Path | None = None, *more: object) -> Answer:
    """Ask about a server from elsewhere: with its address and an identity."""
    folder = identity or Layout(site.folder).identity("operator", "admin")
    arguments = ("--server", f"{HOST}:{site.ports.admin}", "--identity", folder, *more)
    return await asyncio.to_thread(doctor.ask, *arguments)


def settle(doctor: Doctor, site: Site) -> None:
    """Give the doctor the settings of a server on this machine."""
    ports = site.ports
    doctor.set(
        bind_host=HOST,
        agents_port=ports.agents,
        admin_port=ports.admin,
        enrollment_port=ports.enrollment,
        health_port=ports.health,
    )


async def test_a_server_on_this_machine_is_well_in_every_part(doctor: Doctor, folder: Path) -> None:
    async with running(folder) as site:
        settle(doctor, site)
        answer = await asyncio.to_thread(doctor.ask, "--data-dir", folder)
        pid = site.pid
    assert (answer.status, answer.failed) == (0, [])
    assert {level for name, level, _ in answer.lines if name != "time service"} == {"OK"}
    assert answer.one("process") == ("OK", f"the server runs as process {pid}")
    assert [message.rpartition(": ")[2] for _, message in answer.of("ports")] == [
        f"held by the server, process {pid}"
    ] * 4
    assert f"process {pid} may have" in answer.one("open files")[1]
    assert f"schema {migrate.head()}" in answer.one("server")[1]
    assert answer.one("role")[1].endswith("spiffe://fleetwright.local/operator/admin")
    assert "descends from" in answer.one("tls")[1]
    for check in ("agents port", "enrolment port", "health", "admin port", "version", "identity"):
        assert answer.one(check)[0] == "OK"


async def test_a_running_server_with_other_ports_is_told_apart(doctor: Doctor, folder: Path) -> None:
    async with running(folder) as site:
        settle(doctor, site)
        with socket.create_server((HOST, 0)) as free:
            port = free.getsockname()[1]
        doctor.set(agents_port=port)
        answer = await asyncio.to_thread(doctor.ask, "--data-dir", folder)
        listening = site.ports
    [(level, message)] = [line for line in answer.of("ports") if str(port) in line[1]]
    assert level == "WARN"
    assert str(listening.agents) in message
    level, message = answer.one("agents port")
    assert level == "FAIL"
    assert "Connection refused" in message


async def test_a_server_that_drains_is_waited_for(
    doctor: Doctor, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(folder) as site:
        settle(doctor, site)
        with socket.create_server((HOST, 0)) as free:
            port = free.getsockname()[1]
        doctor.set(agents_port=port)
        monkeypatch.setattr(checks, "_listening", lambda: {site.ports.health: site.pid})
        answer = await asyncio.to_thread(doctor.ask, "--data-dir", folder)
    [(level, message)] = [line for line in answer.of("ports") if str(port) in line[1]]
    assert (level, message.partition("free: ")[2]) == (
        "WARN",
        f"the server, process {site.pid}, starts or drains: ask again when it has",
    )


async def test_a_server_elsewhere_is_asked_without_a_folder(doctor: Doctor, site: LocalSite) -> None:
    answer = await asked(doctor, site)
    assert answer.status == 0
    assert answer.one("folder")[0] == "SKIP"
    assert answer.one("role")[0] == "OK"
    assert "not known from here" in answer.one("other ports")[1]


async def test_a_context_names_the_server(doctor: Doctor, site: LocalSite, tmp_path: Path) -> None:
    config = tmp_path / "config/fleetwright/config.toml"
    config.parent.mkdir(parents=True)
    identity = Layout(site.folder).identity("operator", "admin")
    config.write_text(
        f'[contexts.prod]\nserver = "{HOST}:{site.ports.admin}"\nidentity = "{identity}"\n', encoding="utf-8"
    )
    answer = await asyncio.to_thread(doctor.ask, "--context", "prod")
    assert answer.one("role")[0] == "OK"
    unknown = await asyncio.to_thread(doctor.ask, "--context", "test")
    assert unknown.status == 1
    assert "context 'test'" in unknown.one("server")[1]


async def test_another_installation_is_not_trusted(doctor: Doctor, site: LocalSite, tmp_path: Path) -> None:
    other = setup.init(tmp_path / "other", "fleetwright.local", [], datetime.now(UTC))
    answer = await asked(doctor, site, other)
    level, message = answer.one("server")
    assert (answer.status, level) == (1, "FAIL")
    assert "does not descend from the root of identity" in message


async def test_the_port_of_agents_is_not_that_of_administrators(doctor: Doctor, site: LocalSite) -> None:
    identity = Layout(site.folder).identity("operator", "admin")
    address = f"{HOST}:{site.ports.agents}"
    answer = await asyncio.to_thread(doctor.ask, "--server", address, "--identity", identity)
    assert "not its port for administrators" in answer.one("server")[1]


async def test_an_identity_that_was_revoked_is_told(doctor: Doctor, site: LocalSite) -> None:
    night = setup.issue_identity(site.folder, "operator", "night", datetime.now(UTC))
    assert (await asked(doctor, site, night)).status == 0
    serial = x509.load_pem_x509_certificate((night / "cert.pem").read_bytes()).serial_number
    stub = identity_service_pb2_grpc.IdentityServiceStub(site.admin().channel)
    request = identity_service_pb2.RevokeIdentityRequest(name=f"identities/{serial:x}")
    await stub.RevokeIdentity(request)
    answer = await asked(doctor, site, night)
    level, message = answer.one("server")
    assert (answer.status, level) == (1, "FAIL")
    assert "is revoked; ask an operator for another" in message


@pytest.mark.parametrize(
    ("age", "level", "text"),
    [
        (366, "FAIL", "have another one issued"),
        (340, "WARN", "24 days left"),
        (-1, "FAIL", "is this clock right"),
    ],
)
async def test_an_identity_near_its_end_is_told(
    doctor: Doctor, tmp_path: Path, age: int, level: str, text: str
) -> None:
    now = datetime.now(UTC)
    folder = tmp_path / "data"
    setup.init(folder, "fleetwright.local", [], now - 400 * DAY)
    setup.refresh_server(folder, now)
    migrate.upgrade(folder / DATABASE)
    identity = setup.issue_identity(folder, "integrator", "old", now - age * DAY)
    async with serving(folder) as site:
        answer = await asked(doctor, site, identity)
    assert answer.one("identity")[0] == level
    assert text in answer.one("identity")[1]
    if level == "FAIL":
        assert answer.one("server") == ("SKIP", "not asked, for the identity cannot be used")


async def test_an_identity_that_cannot_be_read_is_told(
    doctor: Doctor, site: LocalSite, tmp_path: Path
) -> None:
    answer = await asked(doctor, site, tmp_path / "nowhere")
    assert answer.one("identity")[0] == "FAIL"
    assert answer.one("admin port")[0] == "OK"


async def test_a_server_whose_clock_is_wrong_fails(doctor: Doctor, folder: Path) -> None:
    async with serving(folder, clock=ShiftedClock(timedelta(minutes=10))) as site:
        answer = await asked(doctor, site)
    [(level, message)] = [line for line in answer.of("clock") if "server" in line[1]]
    assert level == "FAIL"
    assert message.startswith("the server's clock is ")
    assert "ahead: certificates are refused" in message


@pytest.mark.parametrize(
    ("offset", "level", "word"),
    [
        (timedelta(), Level.OK, "behind"),
        (29 * SECOND, Level.OK, "ahead"),
        (-29 * SECOND, Level.OK, "behind"),
        (30 * SECOND, Level.WARN, "ahead"),
        (-299 * SECOND, Level.WARN, "behind"),
        (-300 * SECOND, Level.FAIL, "behind"),
    ],
)
def test_a_clock_is_judged_by_the_middle_of_the_round_trip(
    offset: timedelta, level: Level, word: str
) -> None:
    sent = datetime(2030, 1, 1, tzinfo=UTC)
    finding = clock_offset(sent, sent + 8 * SECOND, sent + 4 * SECOND + offset)
    assert finding.level is level
    assert f" {word}" in finding.message


async def test_an_older_command_is_told_to_follow_the_server(
    doctor: Doctor, site: LocalSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controlplane.VERSION", "0.0.9")
    level, message = (await asked(doctor, site)).one("version")
    assert level == "WARN"
    assert "bring the command to that of the server" in message


def test_a_server_that_is_not_there_fails_and_the_rest_is_skipped(doctor: Doctor, folder: Path) -> None:
    with socket.create_server((HOST, 0)) as free:
        address = f"{HOST}:{free.getsockname()[1]}"
    identity = Layout(folder).identity("operator", "admin")
    answer = doctor.ask("--server", address, "--identity", identity)
    level, message = answer.one("admin port")
    assert (answer.status, level) == (1, "FAIL")
    assert message.startswith(f"{address}: Connection refused")
    assert answer.one("server")[0] == "SKIP"


def test_a_name_that_no_one_knows_fails(doctor: Doctor, folder: Path) -> None:
    identity = Layout(folder).identity("operator", "admin")
    answer = doctor.ask("--server", "server.invalid:7444", "--identity", identity)
    assert answer.one("name")[0] == "FAIL"
    assert answer.one("admin port")[0] == "SKIP"


async def test_a_server_that_drains_is_not_ready(doctor: Doctor, folder: Path, site: LocalSite) -> None:
    settle(doctor, site)
    assert site.server is not None
    await site.server.listeners.health.not_serving()
    address = f"localhost:{site.ports.admin}"
    identity = Layout(folder).identity("operator", "admin")
    answer = await asyncio.to_thread(doctor.ask, "--server", address, "--identity", identity)
    assert answer.one("health") == (
        "WARN",
        f"{HOST}:{site.ports.health} says that the server is not ready (503): it starts, or it stops",
    )
