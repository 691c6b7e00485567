"""``kill -9`` of workers between the stages of pipelines and within them, of the only one and of one of two.

Each row is of one place, and kills there in one stage after the other: of every stage another artefact's
pipeline is struck, and the next one begins when it has ended. The only worker is ``serve`` on SQLite, which
takes everything else with it; it dies at the hit of the place that the stage is, and is started again. Of two
workers on PostgreSQL, whichever comes there first stops itself and is killed; the other one goes on with it.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from fleetwright.v1 import packaging_service_pb2 as pb2

from controlplane.packaging.rules import Stage
from faults.factory.artefacts import Artefact, artefact_for, large_wheel
from faults.factory.audit import Expected, channel_version, count
from faults.factory.processes import Machine
from faults.factory.site import Factory, factory_of, keep_running, one_stopped
from faults.faults import Fault, Sizes
from faults.rows.databases import on_postgres
from faults.world import PATIENCE, FaultFailed, World
from tests.support.process import ServerProcess

_ALL = tuple(Stage)
KILLED_IN: dict[str, Sequence[Stage]] = {
    "pipelines.after_begin": _ALL,
    "pipelines.before_commit": _ALL,
    "pipelines.after_commit": _ALL,
    "releases.before_commit": (Stage.STORE,),
    "releases.after_commit": (Stage.STORE,),
}
"""By place: the stages in which a worker dies there."""
_QUICK = (Stage.SIGN, Stage.STORE)
"""The stages of the short form: the one whose bytes are signed, and the last."""
_WITH_JOBS = (Stage.INTAKE, Stage.BUILD, Stage.SBOM)
_BETWEEN = "pipelines.after_commit"
_DYING_SECONDS = 10.0
"""How long after the end of its pipeline a server may die: behind the last commit it has done all."""
_TURNS = 0.004
"""Seconds between two looks for a job, which lives for some hundred milliseconds."""


@dataclass(frozen=True)
class _Strike:
    """A kill, and whose pipeline it ends for a while."""

    place: str
    stage: Stage
    artefact: Artefact

    @property
    def request_id(self) -> str:
        return f"killed-in-{self.stage.name.lower()}"

    @property
    def again(self) -> list[Stage]:
        """The stages that run after it: the one that was not committed, and all behind it."""
        first = self.stage + 1 if self.place == _BETWEEN else int(self.stage)
        return [stage for stage in Stage if stage >= first]

    def hits_after(self) -> int:
        """How often the rest of the pipeline comes to the place."""
        if self.place == "releases.after_commit":
            return 0  # It is released already, and so nothing is published.
        return len([stage for stage in self.again if stage in KILLED_IN[self.place]])

    def hits_until(self) -> int:
        """At which hit of its own pipeline the worker dies."""
        return [stage for stage in Stage if stage in KILLED_IN[self.place]].index(self.stage) + 1


def _strikes(place: str, sizes: Sizes) -> list[_Strike]:
    stages = [stage for stage in KILLED_IN[place] if stage in _QUICK or not sizes.few_stages]
    return [_Strike(place, stage, artefact_for(stage)) for stage in stages]


def _expected(strikes: Sequence[_Strike], versions: int) -> Expected:
    # What was committed is not done again.
    return Expected({one.request_id: one.stage for one in strikes if one.place != _BETWEEN}, versions)


async def _only_worker(world: World, strikes: Sequence[_Strike]) -> None:
    """Kill the server at each strike in turn; it is armed for the next one when it is started again."""
    first, *others = strikes
    async with factory_of(world, failpoints=f"{first.place}=kill@{first.hits_until()}") as factory:
        versions = await channel_version(factory)
        for strike, following in zip(strikes, [*others, None], strict=True):
            world.say(f"{strike.artefact.name} until {strike.stage.name}")
            asked = asyncio.create_task(factory.callers.package(strike.request_id, strike.artefact))
            await _dies_there(factory, asked)
            armed = ""
            if following is not None:
                armed = f"{following.place}=kill@{strike.hits_after() + following.hits_until()}"
            await factory.serve(armed)
            begun = time.monotonic()
            await asked
            await factory.see_ended(strike.request_id, begun)
        await count(factory, _expected(strikes, versions))


async def _dies_there(factory: Factory, asked: asyncio.Task[str]) -> None:
    """Wait for the server's death. Raises ``FaultFailed`` where its pipeline ends without it."""
    dying = asyncio.create_task(factory.died(factory.world.server))
    ending = asyncio.create_task(_end_of(factory, asked))
    try:
        await asyncio.wait({dying, ending}, return_when=asyncio.FIRST_COMPLETED)
        if ending.done() and not dying.done():
            await asyncio.wait({dying}, timeout=_DYING_SECONDS)
        if not dying.done():
            raise FaultFailed(f"nobody died; the pipeline ended: {ending.result()}")
        await dying
    finally:
        for task in (dying, ending):
            task.cancel()
        await asyncio.gather(dying, ending, return_exceptions=True)


async def _end_of(factory: Factory, asked: asyncio.Task[str]) -> str:
    found = await factory.callers.ended(await asyncio.shield(asked))
    return f"{pb2.PipelineState.Name(found.state)} {found.reason}"


async def _one_of_two(world: World, strikes: Sequence[_Strike]) -> None:
    """Kill whichever worker comes to the place of each strike; the other one ends the pipeline."""
    await on_postgres(world)
    async with factory_of(world, roles=("api", "gateway")) as factory:
        versions = await channel_version(factory)
        for strike in strikes:
            world.say(f"{strike.artefact.name} until {strike.stage.name}")
            workers = await factory.start_workers(f"{strike.place}=stop@{strike.hits_until()}")
            await factory.callers.package(strike.request_id, strike.artefact)
            struck = await one_stopped(workers)
            await factory.kill(struck)
            await _ended_by_other(factory, strike, workers, struck)
        await factory.start_workers()
        await count(factory, _expected(strikes, versions))


async def _ended_by_other(
    factory: Factory, strike: _Strike, workers: Sequence[ServerProcess], struck: ServerProcess
) -> None:
    """Wait until the worker that is left has ended the pipeline, and end that worker in order."""
    begun = time.monotonic()
    [left] = [worker for worker in workers if worker is not struck]
    # It is armed like the other one, and may come to the place as often.
    running = asyncio.create_task(keep_running(left))
    await factory.see_ended(strike.request_id, begun)
    status = await left.terminate()
    running.cancel()
    if status:
        factory.world.row.problems.append(f"the worker that was left ended with status {status}")


async def _jobs_of_only_worker(world: World, strikes: Sequence[_Strike]) -> None:
    """Kill the server while a job of each strike's stage runs, and start it again."""
    async with factory_of(world) as factory:
        versions = await channel_version(factory)
        for strike in strikes:
            world.say(f"{strike.artefact.name} until a job of {strike.stage.name} runs")
            await factory.callers.package(strike.request_id, strike.artefact)
            await _killed_in_job(factory, [world.server], strike.stage)
            begun = time.monotonic()
            await factory.serve()
            await factory.see_ended(strike.request_id, begun)
        await count(factory, _expected(strikes, versions))


async def _jobs_of_one_of_two(world: World, strikes: Sequence[_Strike]) -> None:
    """Kill whichever worker has a job of each strike's stage; the other one ends the pipeline."""
    await on_postgres(world)
    async with factory_of(world, roles=("api", "gateway")) as factory:
        versions = await channel_version(factory)
        for strike in strikes:
            world.say(f"{strike.artefact.name} until a job of {strike.stage.name} runs")
            workers = await factory.start_workers()
            await factory.callers.package(strike.request_id, strike.artefact)
            struck = await _killed_in_job(factory, workers, strike.stage)
            await _ended_by_other(factory, strike, workers, struck)
        await factory.start_workers()
        await count(factory, _expected(strikes, versions))


async def _killed_in_job(factory: Factory, workers: Sequence[ServerProcess], stage: Stage) -> ServerProcess:
    """Kill whichever worker has a job of a stage, while that job runs; returns the worker."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        machine = await asyncio.to_thread(factory.watch.look)
        for worker in workers:
            if machine.jobs(worker.pid) and factory.in_stage(worker, stage):
                worker.process.send_signal(signal.SIGSTOP)
                # The job may just have ended. A worker that is stopped begins nothing new.
                if Machine.look().jobs(worker.pid) and factory.in_stage(worker, stage):
                    await factory.kill(worker)
                    return worker
                worker.process.send_signal(signal.SIGCONT)
        await asyncio.sleep(_TURNS)
    raise FaultFailed(f"not within {PATIENCE:.0f} s: a job of {stage.name} runs")


_Killing = Callable[[World, Sequence[_Strike]], Awaitable[None]]


def _at(who: str, what: str, place: str, killing: _Killing) -> Fault:
    async def strike(world: World, sizes: Sizes) -> None:
        await killing(world, _strikes(place, sizes))

    return Fault(f"{who} killed at {place}", f"{what} at {place}, in one stage after the other", strike)


def _in_jobs(who: str, what: str, killing: _Killing) -> Fault:
    async def strike(world: World, sizes: Sizes) -> None:
        stages = _WITH_JOBS[:1] if sizes.few_stages else _WITH_JOBS
        strikes = [_Strike("", stage, large_wheel(int(stage))) for stage in stages]
        await killing(world, strikes)

    what = f"{what} while an isolated job of INTAKE, BUILD and SBOM runs"
    return Fault(f"{who} killed while a job runs", what, strike)


_ONLY = "only worker"
_ONLY_DIES = "kill -9 of the server that alone runs pipelines, and a new start,"
_ONE = "one of two workers"
_ONE_DIES = "kill -9 of one of two workers"

FAULTS = (
    *(_at(_ONLY, _ONLY_DIES, place, _only_worker) for place in KILLED_IN),
    _in_jobs(_ONLY, _ONLY_DIES, _jobs_of_only_worker),
    *(_at(_ONE, _ONE_DIES, place, _one_of_two) for place in KILLED_IN),
    _in_jobs(_ONE, _ONE_DIES, _jobs_of_one_of_two),
)
