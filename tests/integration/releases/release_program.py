"""Publishes one package, or withdraws it, in a process of its own, which a failpoint may kill."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from controlplane import failpoints
from controlplane.packaging.blobs import Blobs
from controlplane.packaging.release_keys import ReleaseKeys
from controlplane.packaging.releasing import Releases
from controlplane.storage.opening import open_database
from tests.contracts.agents_world import SetClock
from tests.contracts.releases_world import SHA256
from tests.unit.verify.evidence_world import NOW


async def main(folder: Path, failpoint: str, verb: str) -> None:
    """Do it."""
    clock = SetClock()
    clock.time = NOW
    database = open_database(folder / "fleetwright.db")
    keys = ReleaseKeys(folder / "release-trust")
    releases = Releases(database, Blobs(folder / "blobs"), clock, keys, folder / "scratch")
    failpoints.arm(failpoint)
    if verb == "publish":
        await releases.publish(SHA256)
    else:
        await releases.withdraw(SHA256, "a test")
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
