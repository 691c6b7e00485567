"""What ``make demo`` runs does the whole job, and says so in numbers."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]


@pytest.mark.slow
async def test_a_small_demo_does_every_step_and_leaves_nothing_behind() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "demo", "--agents", "5", "--json"),
        cwd=REPOSITORY,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, said = await process.communicate()
    assert process.returncode == 0, said.decode()
    summary = json.loads(out)
    assert summary["problems"] == []
    assert summary["connected"] == "6 of 6"
    assert summary["tasks"] == {"SUCCEEDED": 14}
    assert summary["effects"] == {"counted by the hosts": 16, "lost": 0, "doubled": 0}
    assert "CVE-2026-90001" in summary["package of a wheel"]
    decisions = [
        summary[f"package of a {what}"].split()[2].rstrip(";") for what in ("wheel", "deb", "binary")
    ]
    assert decisions == ["FAIL", "EXCEPTION", "PASS"]
    assert summary["installed, each verifying it"] == {"INSTALLED": 6}
    assert summary["agents with telemetry"] == "6 of 6"


async def test_a_demo_without_agents_is_refused_in_words() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "demo", "--agents", "0"),
        cwd=REPOSITORY,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == 2
    assert "--agents" in said.decode()
    assert "Traceback" not in said.decode()
