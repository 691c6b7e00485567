"""The real server on the test's own event loop, on port 0."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane.bootstrap import Server
from controlplane.clock import Clock
from controlplane.settings import Settings
from controlplane.trust.layout import load
from tests.support.site import HOST, Site

QUIET: dict[str, Any] = {
    # What schedules do on their own is far away, unless a test wants it near.
    "presence_sweep": "1h",
    "last_seen_flush": "1h",
    "tasks_sweep": "1h",
    "packages_sweep": "1h",
    "process_renewal": "1h",
    "process_lease": "3h",
    "drain_window": "0",
    "drain_grace": "0",
    "max_agents": 100,
}


@dataclass
class LocalSite(Site):
    """A site whose server can be touched."""

    server: Server | None = None


@asynccontextmanager
async def serving(
    folder: Path, clock: Clock | None = None, stages: Any = None, **settings: Any
) -> AsyncIterator[LocalSite]:
    """Serve a migrated folder with short settings; ``settings`` come on top of ``QUIET``.

    ``stages`` are run in the place of the factory's own.
    """
    ports = {f"{name}_port": 0 for name in ("agents", "admin", "enrollment", "health")}
    server = Server(
        Settings(data_dir=folder, bind_host=HOST, **{**ports, **QUIET, **settings}),
        load(folder),
        clock,
        stages=stages,
    )
    site = LocalSite(folder, await server.start(), server=server)
    try:
        yield site
    finally:
        await site.close()
        await server.stop()
