"""``kill -9`` around the commit of a publication: it is there whole or not at all, and once."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from controlplane.packaging.rules import Decision
from tests.contracts.releases_world import SHA256, World
from tests.integration.releases.releases_served import served

ROOT = Path(__file__).parents[3]


async def killed(made: World, failpoint: str, verb: str) -> None:
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.releases.release_program",
        str(made.folder),
        f"{failpoint}=kill@1",
        verb,
        cwd=ROOT,
    )
    assert await program.wait() == -signal.SIGKILL


@pytest.mark.parametrize(("failpoint", "done"), [("releases.before_commit", 0), ("releases.after_commit", 1)])
async def test_a_publication_that_was_killed_is_made_once(made: World, failpoint: str, done: int) -> None:
    await made.add()
    await made.releases.repository.state()
    await killed(made, failpoint, "publish")
    assert await made.releases.released(SHA256) == bool(done)
    assert await made.releases.reconcile() == 1 - done
    assert (await made.releases.repository.state()).versions["timestamp"] == 2
    async with served(made) as (agent, _, _):
        assert (await agent.install()).ok


@pytest.mark.parametrize(("failpoint", "done"), [("releases.before_commit", 0), ("releases.after_commit", 1)])
async def test_a_withdrawal_that_was_killed_is_made_once(made: World, failpoint: str, done: int) -> None:
    await made.add()
    await made.releases.publish(SHA256)
    await made.decide(Decision.FAIL)
    await killed(made, failpoint, "withdraw")
    assert not await made.releases.released(SHA256), "whatever became of the withdrawal"
    assert await made.releases.reconcile() == 1 - done
    assert (await made.releases.repository.state()).versions["timestamp"] == 3
