"""Running an example of `clients/`, and what each of them must say."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Mapping
from pathlib import Path

PATIENCE = 60.0
"""Seconds that no example takes: only a hang does."""


async def said(*command: str | Path, cwd: Path, variables: Mapping[str, str]) -> list[str]:
    """Run a command that must succeed, without the settings of this process; return its lines."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        cwd=cwd,
        env=dict(variables),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            out, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        out, errors = await process.communicate()
        raise AssertionError(f"{command} hangs; it said: {out.decode()}{errors.decode()}") from None
    assert process.returncode == 0, out.decode() + errors.decode()
    return out.decode().splitlines()


def check(lines: list[str]) -> None:
    """Check what an example of any language says of an agent ``first`` on this host."""
    listed, created, again, *changes, ended, output, refused = lines
    assert listed == f"online: first {platform.node()}"
    assert created.startswith("created: tasks/")
    assert again.lower() == "again the same: true"
    assert changes
    assert changes[-1] == "now: TASK_STATE_SUCCEEDED"
    assert ended == "ended: TASK_STATE_SUCCEEDED"
    assert platform.release() in output
    assert "done" in output
    assert refused.startswith("refused: FILTER_INVALID ")
    assert "unknown field 'hostnam'" in refused
