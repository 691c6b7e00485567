"""The systemd units: valid, as closed as they say, and in step with the programs that they start."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from controlplane.cli.values import duration
from controlplane.preflight import RESERVED_FILES
from controlplane.settings import Settings
from tests.deploy.programs import options_of

FOLDER = Path(__file__).parents[2] / "deploy/systemd"
INSTALLED = "/opt/fleetwright/bin"
UNITS = ("fleetwright", "fleetwright-agent")

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def settings(text: str) -> dict[str, list[str]]:
    """Return the assignments of a unit."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def unit(name: str) -> dict[str, list[str]]:
    return settings((FOLDER / f"{name}.service").read_text())


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Return a folder with the units, whose programs are those of this environment."""
    for path in FOLDER.glob("*.service"):
        text = path.read_text().replace(INSTALLED, str(Path(sys.executable).parent))
        (tmp_path / path.name).write_text(text)
    dropin = tmp_path / "fleetwright-agent.service.d"
    dropin.mkdir()
    shutil.copy(FOLDER / "fleetwright-agent-confined.conf", dropin / "confined.conf")
    return tmp_path


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


@needs_systemd
@pytest.mark.parametrize("name", UNITS)
def test_systemd_finds_nothing_wrong_with_a_unit(name: str, installed: Path) -> None:
    ended = analyze("verify", "--man=no", "--recursive-errors=no", installed / f"{name}.service")
    assert (ended.returncode, ended.stderr) == (0, "")


@needs_systemd
def test_systemd_would_find_something(installed: Path) -> None:
    path = installed / "fleetwright.service"
    path.write_text(path.read_text().replace("LockPersonality=yes", "LockPersonality=perhaps\nNoSuchThing=1"))
    said = analyze("verify", "--man=no", "--recursive-errors=no", path).stderr
    assert "Failed to parse boolean value" in said
    assert "NoSuchThing" in said


# Of 100: from 20 on systemd would call it MEDIUM. The agent's drop-in leaves scripts what users have.
@needs_systemd
@pytest.mark.parametrize(("name", "most"), [("fleetwright", 15), ("fleetwright-agent", 25)])
def test_a_unit_is_as_closed_as_it_says(name: str, most: int, installed: Path) -> None:
    path = installed / f"{name}.service"
    if name == "fleetwright-agent":
        # Offline, systemd-analyze reads no drop-ins.
        path.write_text(path.read_text() + (FOLDER / "fleetwright-agent-confined.conf").read_text())
    ended = analyze("security", "--offline=yes", "--no-pager", f"--threshold={most}", path)
    assert ended.returncode == 0, ended.stdout


def test_the_unconfined_agent_takes_nothing_from_what_its_policy_allows() -> None:
    taken = set(unit("fleetwright-agent")) & set(
        settings((FOLDER / "fleetwright-agent-confined.conf").read_text())
    )
    assert taken == set()


@pytest.mark.parametrize("name", UNITS)
def test_what_a_unit_starts_is_a_command_with_such_options(name: str) -> None:
    program, *words = shlex.split(unit(name)["ExecStart"][0])
    assert program == f"{INSTALLED}/{name}"
    assert {word for word in words if word.startswith("--")} <= options_of(name, words[0])


def test_every_variable_that_the_server_is_given_is_a_setting() -> None:
    given = [value.partition("=")[0] for value in unit("fleetwright")["Environment"]]
    assert {f"FLEETWRIGHT_{name.upper()}" for name in Settings.model_fields} >= set(given)


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_keeps_its_state_where_the_program_looks_for_it(name: str) -> None:
    found = unit(name)
    (state,) = found["StateDirectory"]
    assert (
        f"/var/lib/{state}"
        in " ".join([*found["ExecStart"], *found.get("Environment", [])]).replace("=", " ").split()
    )
    assert found["StateDirectoryMode"] == ["0700"]


def test_the_server_has_time_to_drain_and_files_for_its_agents() -> None:
    found, default = unit("fleetwright"), Settings(_env_file=None)  # type: ignore[call-arg]  # pydantic-settings' own
    assert duration(found["TimeoutStopSec"][0]) >= 2 * (default.drain_window + default.drain_grace)
    assert int(found["LimitNOFILE"][0]) >= default.max_agents + RESERVED_FILES
    said = re.search(r"FLEETWRIGHT_MAX_AGENTS of ([\d,]+)", (FOLDER / "fleetwright.service").read_text())
    assert said is not None
    assert int(found["LimitNOFILE"][0]) >= int(said[1].replace(",", "")) + RESERVED_FILES


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="systemd-sysusers is not installed")
def test_the_users_of_the_units_are_made(tmp_path: Path) -> None:
    (tmp_path / "fleetwright.conf").write_text((FOLDER / "fleetwright.sysusers").read_text())
    ended = subprocess.run(
        ["systemd-sysusers", "--dry-run", tmp_path / "fleetwright.conf"],
        capture_output=True,
        text=True,
        check=True,
    )
    confined = settings((FOLDER / "fleetwright-agent-confined.conf").read_text())
    for user in (*unit("fleetwright")["User"], *confined["User"]):
        assert f"user '{user}'" in ended.stdout + ended.stderr
