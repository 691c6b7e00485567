"""What the consumers' tests share: the wheels, an environment that has one, a server with an agent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from controlplane.trust import setup
from tests.consumers import installed
from tests.consumers.installed import Environment
from tests.support.agent_program import online, running_agent
from tests.support.folders import make_folder
from tests.support.process import running
from tests.support.site import HOST

AGENT_ID = "first"


class Target(NamedTuple):
    """What an example is told: the admin port, an integrator's identity, an agent that is online."""

    server: str
    identity: str
    agent: str


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the wheels of the repository by distribution."""
    return installed.build(tmp_path_factory.mktemp("wheels"))


@pytest.fixture(scope="session")
def environment(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Return an environment with the client library alone, and the types that checkers need."""
    made = installed.make(tmp_path_factory.mktemp("consumer") / "venv")
    installed.install(made, wheels["fleetwright"], extras=["types"])
    return made


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[Target]:
    """Run a server and an agent for a test."""
    folder = make_folder(tmp_path / "data")
    identity = setup.issue_identity(folder, "integrator", "ticketing", datetime.now(UTC))
    async with running(folder) as server, running_agent(server, tmp_path / "agent", AGENT_ID):
        await online(server, AGENT_ID)
        yield Target(f"{HOST}:{server.ports.admin}", str(identity), AGENT_ID)
