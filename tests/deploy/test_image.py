"""The steps of the Dockerfile, run for real in a plain folder, and what they make: started and asked."""

from __future__ import annotations

import asyncio
import json
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

    async def start(self, words: list[str], **variables: str) -> asyncio.subprocess.Process:
        """Start a program that goes on."""
        return await asyncio.create_subprocess_exec(
            *words,
            cwd=self.runner.at(self.image.workdir),
            env=self.env(**variables),
            stderr=asyncio.subprocess.PIPE,
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
    # The agent's stage differs in metadata and its volume alone: one build has both programs.
    image = runner.build("server")
    volume = FILE.setting("agent", "VOLUME")
    assert volume is not None
    runner.at(volume.words[0]).mkdir(parents=True)
    return Built(runner, image)


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


async def serving(server: asyncio.subprocess.Process) -> dict[str, Any]:
    """Wait until a server serves; return what it says of that."""
    assert server.stderr is not None
    async with asyncio.timeout(60):
        async for line in server.stderr:
            entry: dict[str, Any] = json.loads(line)
            if entry["event"] == "serving":
                return entry
    raise AssertionError("the server did not come up")


async def end(process: asyncio.subprocess.Process) -> int:
    """End a program as an engine does; return its status."""
    process.terminate()
    try:
        async with asyncio.timeout(60):
            await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0


async def test_server_and_agent_start_are_healthy_write_to_their_volumes_alone_and_end_in_order(
    built: Built,
) -> None:
    made = built.run(built.words("server", "init"))
    assert made.returncode == 0, made.stderr
    before = built.files()
    settings = {
        **{f"FLEETWRIGHT_{name}_PORT": "0" for name in ("AGENTS", "ADMIN", "ENROLLMENT")},
        "FLEETWRIGHT_HEALTH_PORT": str(free_port()),
        "FLEETWRIGHT_MAX_AGENTS": "100",
        "FLEETWRIGHT_DRAIN_WINDOW": "0",
    }
    server = await built.start(built.words("server"), **settings)
    ports = await serving(server)
    assert (await http_get(int(settings["FLEETWRIGHT_HEALTH_PORT"]), "/readyz"))[0] == 200
    healthy = await asyncio.to_thread(built.run, built.health("server"), **settings)
    assert healthy.returncode == 0, healthy.stderr

    tokens = built.words("server", "tokens", "create", "--server", f"localhost:{ports['admin']}")
    token = await asyncio.to_thread(built.run, tokens)
    assert token.returncode == 0, token.stderr
    enrolment = (
        "--server",
        f"localhost:{ports['enrollment']}",
        "--agent-address",
        f"localhost:{ports['agents']}",
    )
    agent = await built.start(
        [*built.words("agent"), *enrolment], FLEETWRIGHT_JOIN_TOKEN=token.stdout.strip()
    )
    async with asyncio.timeout(60):
        while (await asyncio.to_thread(built.run, built.health("agent"))).returncode:
            assert agent.returncode is None
    assert await end(agent) == 0
    assert built.run(built.health("agent")).returncode != 0
    assert await end(server) == 0
    assert built.run(built.health("server"), **settings).returncode == 1
    assert built.files() == before


def test_the_agent_that_is_nobody_yet_is_not_healthy_and_says_what_it_wants(
    built: Built, tmp_path: Path
) -> None:
    words = [word.replace(str(built.runner.at("/var/lib")), str(tmp_path)) for word in built.words("agent")]
    refused = built.run(words)
    assert refused.returncode != 0
    assert "enrol" in refused.stderr
    assert "Traceback" not in refused.stderr
