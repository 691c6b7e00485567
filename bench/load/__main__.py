"""The load as a process: commands come as JSON lines, and each has one answer.

Usage: python -m bench.load DATA_FOLDER AGENTS_PORT [ADMIN_PORT]
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
from pathlib import Path

import uvloop

from agent_sim.fleet.machine import allow_connections
from bench.load.administrator import Administrator
from bench.load.fleet import Fleet
from controlplane.trust.layout import AGENTS_ROOT, Layout

HOST = "127.0.0.1"


async def _obey(folder: Path, ports: list[str]) -> None:
    layout = Layout(folder)
    admin = None
    if len(ports) > 1:
        admin = Administrator(f"{HOST}:{ports[1]}", layout.identity("operator", "admin"))
    root = layout.trust / f"{AGENTS_ROOT}.pem"
    fleet = Fleet(f"{HOST}:{ports[0]}", folder / "agents.jsonl", root, admin)
    commands: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(commands.put_nowait, line)
        os._exit(0)  # whoever started this is gone

    threading.Thread(target=read, daemon=True).start()
    while True:
        command = json.loads(await commands.get())
        try:
            answer = await getattr(fleet, command.pop("do"))(**command)
        except Exception as error:  # noqa: BLE001 # whatever it is, the run must hear of it
            answer = {"error": f"{type(error).__name__}: {error}; streams lost: {await fleet.losses()}"}
        print(json.dumps(answer), flush=True)


def main() -> None:
    """Obey until the standard input ends."""
    allow_connections(0)
    gc.set_threshold(50_000, 20, 5)  # for the reasons of docs/decisions/0014-garbage-collection.md
    uvloop.run(_obey(Path(sys.argv[1]), sys.argv[2:]))


if __name__ == "__main__":
    main()
