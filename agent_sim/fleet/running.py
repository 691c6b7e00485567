"""One run of a fleet: phases, signals, what is shown meanwhile, and the summary at the end."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent_sim.fleet.counters import Counters, Receipts
from agent_sim.fleet.fleet import Fleet, FleetConfig
from agent_sim.fleet.progress import REFRESH, Display, display_for
from agent_sim.fleet.summary import summarise, write_atomically
from agent_sim.fleet.witness import Witness


@dataclass(frozen=True)
class Outputs:
    """Files that a run writes, each of them optional."""

    effects: Path | None = None
    receipts: Path | None = None
    ready: Path | None = None


async def run_fleet(config: FleetConfig, outputs: Outputs, duration: float | None) -> dict[str, Any]:
    """Run a fleet until ``duration`` seconds after connecting, or SIGTERM or SIGINT; return its summary.

    Raises AgentError where nothing could be enrolled, OSError for a file that cannot be written.
    """
    began = time.monotonic()
    counters = Counters()
    witness = Witness(outputs.effects) if outputs.effects else None
    receipts = Receipts(outputs.receipts.open("a")) if outputs.receipts else None
    fleet = Fleet(config, counters, witness, receipts)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, fleet.stop)
    display = display_for(counters)
    try:
        await _phases(fleet, counters, outputs, duration, display, receipts)
        return summarise(counters, time.monotonic() - began)
    finally:
        fleet.close()
        display.close()
        if receipts is not None:
            receipts.close()
        if witness is not None:
            await witness.close()


async def _phases(
    fleet: Fleet,
    counters: Counters,
    outputs: Outputs,
    duration: float | None,
    display: Display,
    receipts: Receipts | None,
) -> None:
    phase = "enrolling"

    def look() -> None:
        done = counters.enrolled if phase == "enrolling" else counters.connected
        display.show(phase, done, counters.agents)
        if receipts is not None:
            receipts.flush()

    watching = asyncio.create_task(_each(REFRESH, look))
    try:
        stores = await fleet.enroll()
        phase = "connecting"
        running = asyncio.create_task(fleet.run(stores))
        await _first_of(fleet.all_tried.wait(), fleet.stopping.wait(), running)
        phase = "running"
        if outputs.ready is not None and counters.connected_once == counters.agents:
            write_atomically(outputs.ready, {"agents": counters.agents, "connected": counters.connected})
        # Where every agent has stopped for good, there is nothing left to wait for.
        await _first_of(fleet.stopping.wait(), running, timeout=duration)
        phase = "leaving"
        fleet.stop()
        await running
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        look()


async def _first_of(
    *waits: Coroutine[Any, Any, Any] | asyncio.Task[None], timeout: float | None = None
) -> None:
    """Wait until one is done or ``timeout`` seconds have passed; the coroutines are ended, tasks go on."""
    tasks = [wait if isinstance(wait, asyncio.Task) else asyncio.create_task(wait) for wait in waits]
    await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    for wait, task in zip(waits, tasks, strict=True):
        if wait is not task:
            task.cancel()


async def _each(seconds: float, look: Callable[[], None]) -> None:
    while True:
        look()
        await asyncio.sleep(seconds)
