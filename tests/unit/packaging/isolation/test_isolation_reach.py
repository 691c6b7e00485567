"""What a job can reach: files, networks, processes. Each attack is made in every situation that can be had.

What does not hold in a situation has to be said as a fact, and then nothing is claimed.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from controlplane.packaging.isolation.records import IsolationSettings
from tests.unit.packaging.isolation.attempts import ROOT, Came, attempt
from tests.unit.packaging.isolation.conftest import SITUATIONS, SOMEONE, Attempting, order_of, program

pytestmark = pytest.mark.slow

everywhere = pytest.mark.parametrize("situation", SITUATIONS)
InASituation = Callable[[str], Attempting]

ALWAYS = {"network", "memory", "cpu", "files", "no_new_privs", "environment", "capabilities", "descriptors"}
"""What holds on every Linux that we know, whoever the server is and whatever is forbidden to it."""


def expect(came: Came, *facts: str) -> None:
    """Skip where the situation does not deny what the test is about, and says so."""
    assert not came.kind, came.message
    missing = [f"{name}: {came.details[name]}" for name in facts if not came.facts[name]]
    if missing:
        pytest.skip(f"said not to hold here: {'; '.join(missing)}")


@everywhere
async def test_what_needs_no_right_is_denied_everywhere(in_a_situation: InASituation, situation: str) -> None:
    came = await in_a_situation(situation)("echo")
    assert not came.kind, came.message
    assert {name for name in ALWAYS if not came.facts[name]} == set(), came.details


def skip_without_namespaces() -> None:
    tried = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "--pid",
        "--fork",
        "--net",
        "mount",
        "-t",
        "tmpfs",
    ]
    try:
        subprocess.run([*tried, "tmpfs", "/mnt"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no namespaces here: {error}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can try both")
@pytest.mark.parametrize(("situation", "missing"), [("here", set()), ("another user", {"uid"})])
async def test_where_namespaces_may_be_made_everything_else_is_denied_too(
    in_a_situation: InASituation, situation: str, missing: set[str]
) -> None:
    skip_without_namespaces()
    came = await in_a_situation(situation)("echo")
    assert {name for name, held in came.facts.items() if not held} == missing, came.details


@everywhere
async def test_what_is_not_denied_is_said_with_a_reason(in_a_situation: InASituation, situation: str) -> None:
    came = await in_a_situation(situation)("echo")
    if "no namespaces" in situation:
        assert not came.facts["descendants"]
        assert "Operation not permitted" in came.details["descendants"]
    if "another user" in situation:
        assert not came.facts["uid"]
        assert "not root" in came.details["uid"]
    if situation == "here" and os.geteuid() == 0:
        assert came.facts["uid"], came.details


@everywhere
async def test_no_address_can_be_reached(in_a_situation: InASituation, situation: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        came = await in_a_situation(situation)(
            "connect", {"host": "127.0.0.1", "port": server.getsockname()[1]}
        )
    assert came.value["tcp"] != "connected"
    assert came.value["udp"] != "connected"


@everywhere
async def test_no_local_service_can_be_reached(
    in_a_situation: InASituation, situation: str, open_folder: Path
) -> None:
    name = f"@fleetwright-test-{os.getpid()}"
    start = in_a_situation(situation)
    with socket.socket(socket.AF_UNIX) as named, socket.socket(socket.AF_UNIX) as unnamed:
        named.bind(str(open_folder / "service"))
        (open_folder / "service").chmod(0o777)
        unnamed.bind("\0" + name[1:])
        for service, path in ((named, str(open_folder / "service")), (unnamed, name)):
            service.listen()
            assert (await start("connect_locally", {"path": path})).value != "connected"


@everywhere
async def test_a_key_of_the_server_cannot_be_read(
    in_a_situation: InASituation, situation: str, open_folder: Path
) -> None:
    key = open_folder / "key.pem"
    key.write_text("secret", encoding="utf-8")
    key.chmod(0o600)
    if "another user" in situation:
        os.chown(key, SOMEONE, SOMEONE)
    came = await in_a_situation(situation)("read_file", {"path": str(key)})
    if not came.facts["uid"]:
        expect(came, "filesystem")
    assert came.value in ("ENOENT", "EACCES")


@everywhere
async def test_the_machines_secrets_cannot_be_read(in_a_situation: InASituation, situation: str) -> None:
    came = await in_a_situation(situation)("read_file", {"path": "/etc/shadow"})
    assert came.value in ("ENOENT", "EACCES")


@everywhere
async def test_nothing_but_the_scratch_folder_can_be_written(
    in_a_situation: InASituation, situation: str, open_folder: Path
) -> None:
    open_to_all = open_folder / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    folders = ["/", "/tmp", "/var/tmp", "/dev/shm", "/usr", "/usr/lib", "in", str(open_to_all), "out", "tmp"]
    came = await in_a_situation(situation)("write_files", {"folders": folders})
    expect(came, "filesystem")
    assert came.value == ["out", "tmp"]


@everywhere
async def test_no_right_can_be_gained(in_a_situation: InASituation, situation: str) -> None:
    assert (await in_a_situation(situation)("become_root")).value == []


@everywhere
async def test_no_process_but_its_own_gets_its_signals(in_a_situation: InASituation, situation: str) -> None:
    came = await in_a_situation(situation)("kill_around")
    assert not came.kind, came.message
    assert came.value["group"] == "sent"
    assert ("all" in came.value) == came.facts["descendants"]


@everywhere
async def test_a_job_that_kills_its_group_kills_itself_alone(
    in_a_situation: InASituation, situation: str
) -> None:
    came = await in_a_situation(situation)("kill_group")
    assert (came.kind, came.message) == ("killed", "the job was ended: ended by signal 9 (SIGKILL)")


@everywhere
async def test_a_daemon_does_not_survive_its_job(in_a_situation: InASituation, situation: str) -> None:
    name = f"fwd-{os.getpid()}"
    came = await in_a_situation(situation)("leave_a_daemon", {"name": name})
    assert not came.kind, came.message
    assert processes_called(name) == []


@pytest.mark.parametrize("situation", SITUATIONS[1:])  # and here: in test_isolation_leftovers.py
async def test_a_daemon_does_not_survive_the_time_of_its_job(
    in_a_situation: InASituation, situation: str
) -> None:
    name = f"fwt-{os.getpid()}"
    came = await in_a_situation(situation)("leave_a_daemon_and_wait", {"name": name}, wall=1.5)
    assert came.kind == "timeout", came.message
    assert processes_called(name) == []


@everywhere
async def test_a_fork_bomb_is_over_with_its_job(in_a_situation: InASituation, situation: str) -> None:
    came = await in_a_situation(situation)("fork_many", {"most": 60})
    assert not came.kind, came.message
    if came.facts["processes"] and came.facts["uid"]:
        assert came.value["error"] == "EAGAIN"


async def test_a_program_in_the_scratch_folder_cannot_be_executed(settings: IsolationSettings) -> None:
    came = await attempt(settings, "execute_from_scratch")
    expect(came, "filesystem")
    assert came.value == "EACCES"


async def test_a_file_of_the_server_stays_closed_to_a_job(settings: IsolationSettings) -> None:
    """No descriptor is handed on, also one that was made to be."""
    descriptor = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    try:
        assert (await attempt(settings, "echo")).facts["descriptors"]
    finally:
        os.close(descriptor)


def processes_called(name: str) -> list[str]:
    found = []
    for comm in Path("/proc").glob("[0-9]*/comm"):
        try:
            if comm.read_text(encoding="utf-8").strip() == name:
                found.append(comm.parent.name)
        except OSError:
            continue
    return found


def test_a_root_that_has_no_other_user_to_become_runs_jobs_as_itself_and_says_so(
    tmp_path: Path,
) -> None:
    """As in a container without root, whose user namespace knows one user."""
    skip_without_namespaces()
    order = order_of(0, False, tmp_path / "scratch", "echo", None, {})
    command = ["unshare", "--user", "--map-root-user", *program(0)]
    ended = subprocess.run(command, input=order, capture_output=True, cwd=ROOT, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    came = Came(**json.loads(ended.stdout))
    assert not came.kind, came.message
    assert not came.facts["uid"], came.details["uid"]
    assert {name for name in ALWAYS if not came.facts[name]} == set(), came.details
