"""What killed processes left in the scratch folder, and what living ones have there."""

from __future__ import annotations

import os
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from controlplane.packaging.isolation.records import IsolationSettings
from controlplane.packaging.isolation.scratch import Scratch
from tests.integration.factory.factory_world import factory_of

LONG_AGO = time.time() - timedelta(minutes=2).total_seconds()


def job_folder(root: Path) -> Path:
    """Make a folder as a process leaves it that is killed while it fills it: its guard never heard of it."""
    path = Path(tempfile.mkdtemp(prefix="fleetwright-job-", dir=root))
    (path / "in").mkdir()
    (path / "in" / "artefact").write_bytes(b"x")
    return path


async def test_what_was_too_young_at_the_start_is_removed_on_a_schedule(folder: Path) -> None:
    async with factory_of(folder) as factory:
        assert factory.site.server is not None
        worker, root = factory.site.server.worker, folder / "scratch"
        [schedule] = [one for one in worker.schedules() if one.name == "scratch"]
        assert not schedule.once, "each worker sees to its own machine"
        left, living = job_folder(root), Scratch.make(IsolationSettings(scratch_root=root))
        await worker.packaging.clear_jobs()
        assert left.exists(), "a guard may still be removing it"
        for path in (left, living.path):
            os.utime(path, (LONG_AGO, LONG_AGO))
        await worker.packaging.clear_jobs()
        assert not left.exists()
        assert living.path.exists()
        living.remove()
