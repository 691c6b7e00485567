"""The Compose file: well formed, and in step with the Dockerfile, the programs and the settings."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane import VERSION
from controlplane.cli.values import duration
from controlplane.preflight import RESERVED_FILES
from controlplane.settings import Settings
from tests.deploy.dockerfile import parse
from tests.deploy.programs import options_of
from tests.support.process import environment

ROOT = Path(__file__).parents[2]
PATH = ROOT / "deploy/compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(PATH.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
FILE = parse((ROOT / "Dockerfile").read_text())
OURS = ("init", "server")
DEFAULTS = Settings(_env_file=None)  # type: ignore[call-arg]  # pydantic-settings' own

# What the Compose specification has of a service, as far as it is used here.
KEYS = {
    *("build", "cap_drop", "command", "depends_on", "deploy", "entrypoint", "environment", "healthcheck"),
    *("image", "logging", "network_mode", "ports", "profiles", "read_only", "restart", "secrets"),
    *("security_opt", "shm_size", "stop_grace_period", "tmpfs", "ulimits", "volumes"),
}


def step(kind: str) -> list[str]:
    found = FILE.setting("server", kind)
    assert found is not None
    return found.words


def has_compose() -> bool:
    try:
        return (
            subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0
        )
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not has_compose(), reason="docker compose is not installed")
@pytest.mark.parametrize("profile", [[], ["--profile", "postgres"]])
def test_docker_compose_takes_it(profile: list[str]) -> None:
    command = ["docker", "compose", "--file", str(PATH), *profile, "config", "--quiet"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert (ended.returncode, ended.stderr) == (0, "")


def test_nothing_stands_in_it_that_is_no_key_of_compose() -> None:
    assert {key for key in COMPOSE if not key.startswith("x-")} == {"name", "services", "secrets", "volumes"}
    assert {key for service in SERVICES.values() for key in service} <= KEYS


def test_what_is_named_is_declared_and_what_is_declared_is_used() -> None:
    volumes = {volume.partition(":")[0] for service in SERVICES.values() for volume in service["volumes"]}
    assert volumes == set(COMPOSE["volumes"])
    secrets = {name for service in SERVICES.values() for name in service.get("secrets", [])}
    assert secrets == set(COMPOSE["secrets"])
    assert {name for service in SERVICES.values() for name in service.get("depends_on", {})} <= set(SERVICES)


@pytest.mark.parametrize("name", OURS)
def test_a_service_of_ours_is_built_from_the_dockerfile_and_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["image"] == f"fleetwright:{VERSION}"
    assert (PATH.parent / service["build"]["context"]).resolve() == ROOT
    assert service["build"]["target"] in {stage.name for stage in FILE.stages}
    assert service["volumes"] == [f"data:{step('VOLUME')[0]}"]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_the_server_starts_as_its_image_says_after_its_folder_was_made() -> None:
    server = SERVICES["server"]
    assert {"entrypoint", "command", "healthcheck"}.isdisjoint(server)
    assert server["depends_on"] == {"init": {"condition": "service_completed_successfully"}}


def test_the_ports_are_those_of_the_image_and_that_of_metrics_is_not_among_them() -> None:
    published = [port.split(":") for port in SERVICES["server"]["ports"]]
    assert [port[-1] for port in published] == step("EXPOSE")
    assert all(port[-1] == port[-2] for port in published)
    assert [port for port in published if port[-1] == str(DEFAULTS.admin_port)] == [
        ["127.0.0.1", "7444", "7444"]
    ]


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_a_setting_with_a_value_that_it_takes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {key: value for key, value in SERVICES[name].get("environment", {}).items() if "${" not in value}
    for key, value in given.items():
        monkeypatch.setenv(key, value)
        assert key.removeprefix("FLEETWRIGHT_").lower() in Settings.model_fields
    Settings()


def test_the_limits_are_enough() -> None:
    server = SERVICES["server"]
    assert server["ulimits"]["nofile"]["hard"] >= DEFAULTS.max_agents + RESERVED_FILES
    assert duration(server["stop_grace_period"]) >= 2 * (DEFAULTS.drain_window + DEFAULTS.drain_grace)


def test_the_folder_is_made_once(tmp_path: Path) -> None:
    (script,) = SERVICES["init"]["command"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    variables = {"FLEETWRIGHT_HOST": "fleet.example.org", "FLEETWRIGHT_DATA_DIR": str(tmp_path), "PATH": path}
    command = [*SERVICES["init"]["entrypoint"], script.replace("$$", "$")]
    for _ in range(2):
        subprocess.run(command, cwd=tmp_path, env=environment(variables), check=True, capture_output=True)
    assert (tmp_path / "trust").is_dir()
    words = shlex.split(script.partition("exec ")[2])
    assert {word for word in words if word.startswith("--")} <= options_of(*words[:2])


def test_the_database_does_not_start_by_itself_and_is_used_where_the_environment_says_so() -> None:
    assert [name for name in SERVICES if "profiles" in SERVICES[name]] == ["postgres"]
    assert SERVICES["postgres"]["profiles"] == ["postgres"]
    assert SERVICES["postgres"]["image"].startswith("postgres:18")
    told = SERVICES["server"]["environment"]
    assert told["FLEETWRIGHT_DATABASE_URL"] == "${FLEETWRIGHT_DATABASE_URL:-}"
    assert told["FLEETWRIGHT_GATEWAYS"] == "${FLEETWRIGHT_GATEWAYS:-1}"
    # A password in the file itself would be in everyone's copy of it.
    assert not re.search(r"postgresql://\w+:\w", PATH.read_text())
