"""What pipelines write to is taken away: the disk of the store is full, PostgreSQL is gone for a moment."""

from __future__ import annotations

import asyncio
import time

from fleetwright.v1 import packaging_service_pb2 as pb2

from controlplane.packaging.rules import Stage
from faults.factory.artefacts import artefact_for, large_wheel
from faults.factory.audit import Expected, channel_version, count
from faults.factory.site import LOOK, Factory, factory_of
from faults.faults import Fault, Sizes
from faults.rows.databases import on_postgres
from faults.rows.disks import Disk, mounted_disk
from faults.world import PATIENCE, FaultFailed, FaultSkipped, World

_STORE_SIZE = "64m"
_FULL = "DISK_FULL"
_AWAY = 5.0
"""Seconds that PostgreSQL is away for: some stages would have come and gone meanwhile."""


async def _store_filled(world: World, sizes: Sizes) -> None:
    folder = world.folder / "store"
    disk = await mounted_disk(world, folder, _STORE_SIZE)
    if not disk.mounted:
        raise FaultSkipped("no file system can be mounted here")
    world.settings["packages_dir"] = str(folder)
    async with factory_of(world) as factory:
        versions = await channel_version(factory)
        stages = (Stage.INTAKE, Stage.SIGN, Stage.STORE) if not sizes.few_stages else (Stage.SIGN,)
        for stage in stages:
            await _full_for_a_pipeline(factory, disk, stage)
        refused = await _full_for_an_upload(factory, disk)
        twice = {f"full-for-{stage.name.lower()}": Stage.INTAKE for stage in stages}
        await count(factory, Expected(twice, versions))
    world.row.note = (
        f"{disk.how}; pipelines ended in error with {_FULL}, and were retried; refused: {refused}"
    )


async def _full_for_an_upload(factory: Factory, disk: Disk) -> dict[str, int]:
    """Let an upload meet a full disk, and go on once there is room; returns what the caller was told."""
    callers = factory.callers
    await disk.fill()
    asked = asyncio.create_task(callers.package("full-for-an-upload", artefact_for(Stage.BUILD)))
    await factory.world.until("an upload is refused", lambda: callers.errors.total() > 0)
    refused = dict(callers.errors)
    disk.free()
    begun = time.monotonic()
    await asked
    await factory.see_ended("full-for-an-upload", begun)
    if refused.keys() != {"UNAVAILABLE"}:
        factory.world.row.problems.append(f"an upload to a full disk was refused with {refused}")
    return refused


async def _full_for_a_pipeline(factory: Factory, disk: Disk, stage: Stage) -> None:
    """Let a pipeline meet a full disk, and retry it once there is room."""
    callers, request_id = factory.callers, f"full-for-{stage.name.lower()}"
    name = await callers.package(request_id, artefact_for(stage), on_demand=True)
    await disk.fill()
    await callers.execute(name)
    ended = await callers.ended(name)
    codes = {one.reason_code for one in ended.stages if one.reason_code}
    if ended.state != pb2.PIPELINE_STATE_ERROR or codes != {_FULL}:
        state = pb2.PipelineState.Name(ended.state)
        factory.world.row.problems.append(f"on a full disk: {state} {ended.reason} {sorted(codes)}")
    disk.free()
    begun = time.monotonic()
    await callers.retry(name)
    await factory.see_ended(request_id, begun)


async def _database_gone(world: World, sizes: Sizes) -> None:
    database = await on_postgres(world)
    async with factory_of(world) as factory:
        versions = await channel_version(factory)
        stages = (Stage.BUILD, Stage.SBOM) if not sizes.few_stages else (Stage.BUILD,)
        struck = {f"database-gone-in-{stage.name.lower()}": stage for stage in stages}
        for request_id, stage in struck.items():
            await factory.callers.package(request_id, large_wheel(int(stage)))
            await _until_in_stage(factory, stage)
            # The time is the fault here, and no wait for anything.
            await asyncio.to_thread(database.restart, _AWAY)
            await factory.see_ended(request_id, time.monotonic())
        # A stage that could not be committed is done again.
        await count(factory, Expected(struck, versions, exactly=False))
    world.row.note = f"away for {_AWAY:.0f} s, {len(stages)} times"


async def _until_in_stage(factory: Factory, stage: Stage) -> None:
    deadline = time.monotonic() + PATIENCE
    while not factory.in_stage(factory.world.server, stage):
        if time.monotonic() > deadline:
            raise FaultFailed(f"not within {PATIENCE:.0f} s: {stage.name} runs")
        await asyncio.sleep(LOOK / 10)


FAULTS = (
    Fault(
        "store's disk full",
        "the disk of the packages is filled before a pipeline begins, and has room when it is retried",
        _store_filled,
    ),
    Fault(
        "PostgreSQL gone while a pipeline runs",
        "PostgreSQL is away while an isolated job runs, and when its stage ends",
        _database_gone,
    ),
)
