"""The load's fleet, and what it can be told to do."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc

from agent_sim.protocol.identity import AgentIdentity
from bench.load.administrator import Administrator
from bench.load.agent import Agent
from bench.load.returning import Returners

_CONNECTING = 48
_PATIENCE = 90.0
_CREATING = 200
"""Calls under way at once: what waits beyond them would only wait in gRPC."""


class Fleet:
    """Agents on one server, and an administrator where it has an admin port.

    Every method is a command; what it returns is JSON-ready.
    """

    def __init__(self, address: str, identities: Path, root: Path, admin: Administrator | None) -> None:
        self._address = address
        self._root = root.read_bytes()
        self._lines = identities.read_text().splitlines()
        self._admin = admin
        self._agents: list[Agent] = []
        self._returners = Returners()
        self._losses: Counter[str] = Counter()
        # a storm of beats
        self._pace: float | None = None
        self._storming: set[Agent] = set()
        self._due: dict[Agent, float] = {}
        self._beats = 0
        # single beats that are timed
        self._echoes: dict[Agent, float] = {}
        self._echoed: list[float] = []
        # tasks
        self._acknowledged = 0
        self._progress = asyncio.Event()
        self._receipts: dict[str, int] = {}
        self._slots: asyncio.Semaphore | None = None

    # --- what agents say

    def beat_answered(self, agent: Agent) -> float | None:
        """Note an answer; returns seconds to the next beat, None for the session's own interval."""
        sent = self._echoes.pop(agent, None)
        if sent is not None:
            self._echoed.append(time.perf_counter() - sent)
        if self._pace is None or agent not in self._storming:
            return None
        self._beats += 1
        if not self._pace:
            return 0.0
        now = time.perf_counter()
        self._due[agent] = due = max(now, self._due.get(agent, now) + self._pace)
        return due - now

    def received(self, task: str) -> None:
        """Note the receipt of an assignment, by the clock that the server reads too."""
        self._receipts.setdefault(task, time.time_ns())

    def acknowledged(self) -> None:
        """Note that a result is committed."""
        self._acknowledged += 1
        self._progress.set()
        if self._slots is not None:
            self._slots.release()

    def lost(self, agent_id: str, why: str) -> None:
        """Note that a stream ended that should not."""
        self._losses[why] += 1

    # --- commands

    async def skip(self, number: int) -> dict[str, Any]:
        """Leave the first ``number`` agents to another load."""
        self._lines = self._lines[number:]
        return {"left": len(self._lines)}

    async def connect(self, number: int) -> dict[str, Any]:
        """Connect the next ``number`` agents."""
        first = len(self._agents)
        lines = self._lines[first : first + number]
        if len(lines) < number:
            raise ValueError(f"only {len(lines)} of {number} agents are enrolled")
        fresh = [Agent(self._identity(line), self._address, self) for line in lines]
        gate = asyncio.Semaphore(_CONNECTING)

        async def one(agent: Agent) -> None:
            async with gate:
                await agent.connect()

        began = time.perf_counter()
        await asyncio.gather(*(one(agent) for agent in fresh))
        self._agents += fresh
        # What measures must not stop to look for garbage among the fleet that it plays.
        gc.collect()
        gc.freeze()
        return {"seconds": time.perf_counter() - began, "connected": len(self._agents)}

    async def beats(self, agents: int, pace: float, seconds: float) -> dict[str, Any]:
        """Let ``agents`` beat as fast as they are answered, but not faster than each ``pace`` seconds."""
        self._storming = set(self._agents[:agents])
        self._pace, self._beats = pace, 0
        began = time.perf_counter()
        for agent in self._storming:
            self._due[agent] = began
            agent.beat_now()
        await asyncio.sleep(seconds)
        self._pace = None
        return {"beats": self._beats, "seconds": time.perf_counter() - began}

    async def echo(self, rate: float, seconds: float) -> dict[str, Any]:
        """Let agents in turn send one beat at an even ``rate``; returns their round trips in milliseconds."""
        self._echoed = []

        async def one(place: int) -> None:
            agent = self._agents[place % len(self._agents)]
            sent = time.perf_counter()
            if agent.beat_now():
                self._echoes[agent] = sent

        await self._paced(one, rate, seconds)
        await asyncio.sleep(0.5)
        unanswered = len(self._echoes)
        self._echoes.clear()
        return {"milliseconds": [seconds * 1000 for seconds in self._echoed], "unanswered": unanswered}

    async def work(self, tasks: int, outstanding: int) -> dict[str, Any]:
        """Create tasks one by one, ``outstanding`` at a time, until all results are acknowledged."""
        self._slots = asyncio.Semaphore(outstanding)
        self._receipts.clear()
        wanted = self._acknowledged + tasks
        began = time.perf_counter()
        creating = set()
        for place in range(tasks):
            await self._slots.acquire()
            creation = asyncio.ensure_future(self._create(place))
            creating.add(creation)
            creation.add_done_callback(creating.discard)
        await asyncio.gather(*creating)
        await self._until(partial(self._reached, wanted))
        self._slots = None
        return {"tasks": tasks, "seconds": time.perf_counter() - began}

    async def batches(self, number: int, selector: str) -> dict[str, Any]:
        """Create tasks for all that ``selector`` matches, ``number`` times, each when the last is done."""
        assert self._admin is not None
        self._receipts.clear()
        began, tasks = time.perf_counter(), 0
        for _ in range(number):
            before = self._acknowledged
            created = await self._admin.create_for(selector)
            tasks += created
            await self._until(partial(self._reached, before + created))
        return {"tasks": tasks, "seconds": time.perf_counter() - began}

    async def dispatch(self, rate: float, seconds: float) -> dict[str, Any]:
        """Create tasks for agents in turn at an even ``rate``; returns when each was received.

        In milliseconds after its ``create_time``, which the server reads before it commits. A server
        that takes fewer tasks than ``rate`` gets them as fast as it takes them: ``created_per_second``.
        """
        self._receipts.clear()
        created: dict[str, int] = {}
        refused: Counter[str] = Counter()
        gate = asyncio.Semaphore(_CREATING)

        async def one(place: int) -> None:
            async with gate:
                try:
                    # A step that meets every agent once before any of them again.
                    task = await self._create(place * 7919)
                except grpc.aio.AioRpcError as error:
                    refused[f"{error.code().name}: {error.details()}"] += 1
                    return
            created[task.name] = task.create_time.ToNanoseconds()

        began = time.perf_counter()
        await self._paced(one, rate, seconds)
        creating = time.perf_counter() - began
        await self._until(lambda: created.keys() <= self._receipts.keys())
        waits = [(self._receipts[name] - when) / 1e6 for name, when in created.items()]
        return {
            "milliseconds": waits,
            "created_per_second": len(created) / max(creating, seconds),
            "refused": dict(refused),
            "seconds": time.perf_counter() - began,
        }

    async def replay(self, points: int, most: int = 1_000) -> dict[str, Any]:
        """Let every agent send so many points, at most ``most`` a batch, until all are acknowledged."""
        began = time.perf_counter()
        replays = [agent.replay(points, most) for agent in self._agents]
        stored = await asyncio.gather(*(replay.run() for replay in replays))
        return {
            "points": sum(stored),
            "batches": sum(replay.batches for replay in replays),
            "least_budget": min(replay.least_budget for replay in replays),
            "seconds": time.perf_counter() - began,
        }

    async def come(self, number: int) -> dict[str, Any]:
        """Let agents come that come back by themselves whenever they are lost."""
        identities = [self._identity(line) for line in self._lines[:number]]
        await self._returners.begin(identities, self._address, number / 300)
        return {"welcomed": number}

    async def forget(self) -> dict[str, Any]:
        """Forget who came: the server is about to be killed."""
        self._returners.forget()
        return {}

    async def returned(self, within: float) -> dict[str, Any]:
        """Wait until all are back; returns when, in seconds of the machine's monotonic clock."""
        times, refusals = await self._returners.returned(timedelta(seconds=within))
        return {"welcomed": times, "refused": refusals}

    async def losses(self) -> dict[str, Any]:
        """Return why streams ended that should not, by how many."""
        return dict(self._losses)

    async def leave(self) -> dict[str, Any]:
        """Let every agent leave in order."""
        leaving, self._agents = self._agents, []
        await asyncio.gather(*(agent.leave() for agent in leaving))
        if self._admin is not None:
            await self._admin.close()
        return {"left": len(leaving)}

    # --- inside

    async def _create(self, place: int) -> Any:
        assert self._admin is not None
        return await self._admin.create(self._agents[place % len(self._agents)].agent_id)

    def _reached(self, acknowledged: int) -> bool:
        return self._acknowledged >= acknowledged

    async def _until(self, done: Callable[[], bool]) -> None:
        """Wait until ``done``, which is asked after each acknowledgement. Raises ``TimeoutError``."""
        async with asyncio.timeout(_PATIENCE):
            while not done():
                self._progress.clear()
                await self._progress.wait()

    @staticmethod
    async def _paced(one: Any, rate: float, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        began, running = loop.time(), []
        for place in range(round(rate * seconds)):
            delay = began + place / rate - loop.time()
            if delay > 0:
                await asyncio.sleep(delay)
            running.append(loop.create_task(one(place)))
        await asyncio.gather(*running)

    def _identity(self, line: str) -> AgentIdentity:
        entry = json.loads(line)
        begin = datetime.now(UTC)
        return AgentIdentity(
            agent_id=entry["id"],
            spiffe_id="",
            key_pem=entry["key"].encode(),
            chain_pem=entry["chain"].encode(),
            trust_bundle_pem=self._root,
            not_before=begin,
            not_after=begin + timedelta(days=1),
            renew_after=begin + timedelta(hours=12),
            agent_addresses=(self._address,),
        )
