"""The harness of faults in its short form: small worlds, each fault for real. `make faults` is the whole."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from agent_sim.failpoints import PLACES
from controlplane.failpoints import NAMES
from faults import run
from faults.faults import QUICK
from faults.rows import ALL
from faults.rows.agent_kills import POINTS
from faults.rows.pipeline_kills import KILLED_IN
from faults.rows.server_kills import KILLED_AT
from faults.rows.worker_kills import KILLED_AT as WORKER_KILLED_AT

# One of each kind, and of the kills those on whose two sides the promises stand. `make faults` runs all.
CHOSEN = (
    "server killed at tasks.after_create",
    "server killed at results.after_receive",
    "server killed at results.after_commit",
    "server killed at telemetry.after_commit",
    "agents killed at agent.after_journal",
    "agents killed at agent.after_effect",
    "agents killed at agent.after_send",
    "network cut by RST",
    "network delays",
    "agents' state copied",
    "server stalled",
    "PostgreSQL restarted",
    "PostgreSQL killed",
    "one gateway of 3 killed at results.after_commit",
    "worker killed at sweep.before_commit",
    "server's disk full",
)
CHOSEN_OF_THE_FACTORY = (
    "only worker killed at pipelines.before_commit",
    "only worker killed while a job runs",
    "one of two workers killed at pipelines.after_commit",
    "store's disk full",
    "PostgreSQL gone while a pipeline runs",
)


LONG = {
    "server killed at results.after_receive",
    "server killed at telemetry.after_commit",
    "agents killed at agent.after_journal",
    "agents killed at agent.after_send",
    "network delays",
    "server stalled",
    "PostgreSQL restarted",
    "only worker killed at pipelines.before_commit",
    "PostgreSQL gone while a pipeline runs",
}


def cases(names: tuple[str, ...]) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.long) if name in LONG else name for name in names]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", cases(CHOSEN))
async def test_nothing_is_lost_and_nothing_doubled(name: str) -> None:
    row = await run.run(ALL[name], QUICK, lambda _: None)
    if row.skipped:
        pytest.skip(row.skipped)
    assert row.problems == []
    assert (row.lost, row.doubled) == (0, 0)
    assert row.effects
    assert row.tasks >= QUICK.tasks


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", cases(CHOSEN_OF_THE_FACTORY))
async def test_every_pipeline_ends_with_one_package_and_one_release(name: str) -> None:
    row = await run.run(ALL[name], QUICK, lambda _: None)
    if row.skipped:
        pytest.skip(row.skipped)
    assert row.problems == []
    assert (row.lost, row.doubled) == (0, 0)
    # Each was asked for once with a kill, and once more without.
    assert row.pipelines == 2 * row.effects > 0


def test_every_failpoint_of_the_server_is_tried() -> None:
    # Those of a restore are tried in tests/integration/backup.
    elsewhere = {name for name in NAMES if name.startswith("restore.")}
    assert set(KILLED_AT) | set(WORKER_KILLED_AT) | set(KILLED_IN) == NAMES - elsewhere


def test_every_place_of_an_agent_is_tried() -> None:
    # Renewal is tried in tests/integration/agent: the harness's certificates live longer than its worlds.
    # So is the installation of packages, which the harness's agents do not do.
    elsewhere = {name for name in PLACES if name.startswith("agent.install_")}
    elsewhere |= {"agent.after_certificate", "agent.after_promotion"}
    assert set(POINTS) == set(PLACES) - elsewhere


def test_every_fault_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "faults.md").read_text()
    missing = [name for name in ALL if f"`{re.split(' at ', name)[0]}" not in text]
    assert missing == []
