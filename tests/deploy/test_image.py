"""The steps of the Dockerfile, run for real in a plain folder, and what they make: started and asked."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from controlplane import VERSION
from tests.deploy.dockerfile import Image, Runner, parse
from tests.support.process import environment
from tests.support.site import HOST, http_get

ROOT = Path(__file__).parents[2]
FILE = parse((ROOT / "Dockerfile").read_text())

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Built:
    """An image in a folder, and its programs."""

    def __init__(self, runner: Runner, image: Image) -> None:
        self.runner = runner
        self.image = image

    def words(self, target: str, *arguments: str) -> list[str]:
        """Return the command line of a container."""
        entrypoint = FILE.setting(target, "ENTRYPOINT")
        command = FILE.setting(target, "CMD")
        assert entrypoint is not None
        assert command is not None
        return self.runner.command(self.image, [*entrypoint.words, *(arguments or command.words)])

    def health(self, target: str) -> list[str]:
        """Return the command line of the health check."""
        check = FILE.setting(target, "HEALTHCHECK")
        assert check is not None
        kind, _, rest = check.text.partition(" ")
        assert kind == "CMD"
        return self.runner.command(self.image, type(check)("CMD", {}, rest).words)

    def env(self, **variables: str) -> dict[str, str]:
        """Return the environment of a container."""
        clean = environment(variables)
        del clean["PYTHONPATH"]
        return {**clean, **self.image.env, **variables}

    def run(self, words: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        place = self.runner.at(self.image.workdir)
        return subprocess.run(
            words, cwd=place, env=self.env(**variables), capture_output=True, text=True, check=False
        )

    def files(self) -> dict[str, int]:
        """Return every file outside of volumes, with the time of its last change."""
        volumes = [self.runner.at(f"/var/lib/{name}") for name in ("fleetwright", "fleetwright-agent")]
        return {
            str(path): path.lstat().st_mtime_ns
            for path in self.image.root.rglob("*")
            if not any(path.is_relative_to(volume) for volume in volumes)
        }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    runner = Runner(FILE, ROOT, tmp_path_factory.mktemp("image"))
    # The agent's stage differs from the server's in metadata alone: one build has both programs.
    return Built(runner, runner.build("server"))


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        return int(taken.getsockname()[1])


def test_what_needs_a_container_was_left_out_and_nothing_else(built: Built) -> None:
    programs = [command.split()[0] for command in built.image.skipped]
    assert programs == ["groupadd", "useradd", "install"]


def test_the_image_has_the_program_and_nothing_that_builds(built: Built) -> None:
    assert built.run(built.words("server", "--version")).stdout == f"{VERSION}\n"
    names = {path.name for path in built.runner.at("/opt/fleetwright/bin").iterdir()}
    assert {"fleetwright", "fleetwright-agent"} <= names
    assert not {name for name in names if name.startswith(("pip", "easy_install", "wheel"))}
    packages = {path.name for path in built.runner.at("/opt/fleetwright").glob("lib/python*/site-packages/*")}
    assert {"controlplane", "fleetwright", "grpc"} <= packages
    assert not packages & {"pip", "setuptools", "pytest", "mypy"}
    # Of the build stage, nothing but the environment is there.
    assert {path.name for path in built.image.root.iterdir()} == {"opt", "var"}


async def test_the_server_starts_is_healthy_writes_to_its_volume_alone_and_drains(built: Built) -> None:
    made = built.run(built.words("server", "init"))
    assert made.returncode == 0, made.stderr
    before = built.files()
    ports = {f"FLEETWRIGHT_{name}_PORT": "0" for name in ("AGENTS", "ADMIN", "ENROLLMENT")}
    settings = {
        **ports,
        "FLEETWRIGHT_HEALTH_PORT": str(free_port()),
        "FLEETWRIGHT_MAX_AGENTS": "100",
        "FLEETWRIGHT_DRAIN_WINDOW": "0",
    }
    server = await asyncio.create_subprocess_exec(
        *built.words("server"),
        cwd=built.runner.at(built.image.workdir),
        env=built.env(**settings),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert server.stderr is not None
        async with asyncio.timeout(60):
            async for line in server.stderr:
                if b'"serving"' in line:
                    break
        assert (await http_get(int(settings["FLEETWRIGHT_HEALTH_PORT"]), "/readyz"))[0] == 200
        healthy = await asyncio.to_thread(built.run, built.health("server"), **settings)
        assert healthy.returncode == 0, healthy.stderr
        server.terminate()
        await server.communicate()
        assert server.returncode == 0
    finally:
        if server.returncode is None:
            server.kill()
            await server.wait()
    sick = await asyncio.to_thread(built.run, built.health("server"), **settings)
    assert sick.returncode == 1
    assert built.files() == before


def test_the_agent_is_not_healthy_before_it_is_connected(built: Built) -> None:
    place = built.runner.at("/var/lib/fleetwright-agent")
    place.mkdir(parents=True, exist_ok=True)
    assert built.run(built.words("agent", "--help")).returncode == 0
    assert built.run(built.health("agent")).returncode != 0
    refused: Any = built.run(built.words("agent"))
    assert refused.returncode != 0
    assert "Traceback" not in refused.stderr
