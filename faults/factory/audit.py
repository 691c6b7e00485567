"""The count after workers were killed: what callers were told against what there is.

The callers' list says which pipelines there must be; packages are counted by the service, by the folder of
the store and by the metadata that agents get, and each of the three has to say the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from fleetwright.v1 import packaging_service_pb2 as pb2

from controlplane.packaging.rules import Stage
from faults.factory.agents import reader_of
from faults.factory.site import Factory

_AGAIN = "again-"
"""How the requests begin that ask for the same artefacts once more, with nobody killed."""


@dataclass(frozen=True)
class Expected:
    """How often the stages of a request's pipeline have to have run: once, but for those named here."""

    twice: Mapping[str, Stage]
    versions: int
    """The version of the channel before the first release."""
    exactly: bool = True
    """Whether what may have run twice must have."""

    def runs(self, request_id: str, stage: Stage) -> tuple[int, ...]:
        """Return how often a stage may have run."""
        if self.twice.get(request_id) is not stage:
            return (1,)
        return (2,) if self.exactly else (1, 2)


async def channel_version(factory: Factory) -> int:
    """Return how often the channel was published."""
    async with reader_of(factory) as reader:
        return (await reader.channel()).version


async def count(factory: Factory, expected: Expected) -> None:
    """Fill the row of a world whose pipelines have all ended, and whose processes are all there again."""
    row, callers = factory.world.row, factory.callers
    # A list has no reports of stages.
    pipelines = {one.name: await callers.pipeline(one.name) for one in await callers.pipelines()}
    wanted = set(callers.acknowledged.values())
    row.pipelines = len(wanted)
    _lost(factory, "pipelines that were acknowledged", wanted - pipelines.keys())
    _doubled(factory, "pipelines that nobody asked for", pipelines.keys() - wanted)
    for request_id, name in callers.acknowledged.items():
        if name in pipelines:
            _check_pipeline(factory, request_id, pipelines[name], expected)
    packages = await _count_packages(factory, pipelines.values())
    await _count_releases(factory, packages, expected)
    await asyncio.to_thread(_count_blobs, factory, pipelines.values(), packages)
    await _count_again(factory, pipelines)
    await factory.leaves_nothing()


def _check_pipeline(factory: Factory, request_id: str, found: pb2.Pipeline, expected: Expected) -> None:
    what = f"{request_id} ({factory.callers.artefacts[request_id].name})"
    if found.state != pb2.PIPELINE_STATE_PASSED:
        state = pb2.PipelineState.Name(found.state)
        _lost(factory, "pipelines that did not pass", {f"{what}: {state} {found.reason}"})
    runs = {Stage(one.stage): one.run_count for one in found.stages}
    wrong = [
        f"{stage.name} {runs.get(stage)} times"
        for stage in Stage
        if runs.get(stage) not in expected.runs(request_id, stage)
    ]
    if wrong:
        factory.world.row.problems.append(f"{what}: ran {', '.join(wrong)}")


async def _count_packages(factory: Factory, pipelines: Iterable[pb2.Pipeline]) -> dict[str, pb2.Package]:
    """Hold the service's packages to one of each pipeline."""
    packages = await factory.callers.packages()
    made = {one.package: one.name for one in pipelines}
    names = [one.name for one in packages]
    _lost(factory, "packages of pipelines", made.keys() - set(names))
    extra = [name for name in names if name not in made] + [
        name for name, times in Counter(names).items() for _ in range(times - 1)
    ]
    _doubled(factory, "packages beyond one of a pipeline", extra)
    return {one.name: one for one in packages}


async def _count_releases(factory: Factory, packages: Mapping[str, pb2.Package], expected: Expected) -> None:
    """Hold the metadata to one release of each package, and let an agent judge every one of them."""
    async with reader_of(factory) as reader:
        channel = await reader.channel()
        problems = [await reader.problem(one) for one in packages.values()]
    released = {f"packages/{sha256}" for sha256 in channel.packages.values()}
    _lost(factory, "packages that agents cannot have", packages.keys() - released)
    _lost(factory, "packages that an agent refuses", {one for one in problems if one})
    _doubled(factory, "releases of what is no package", released - packages.keys())
    _doubled(factory, "releases beyond one of a package", range(len(channel.packages) - len(released)))
    _doubled(factory, "files of evidence", range(len(channel.evidence) - len(released)))
    beyond = channel.version - expected.versions - len(packages)
    _doubled(factory, "publications beyond one of a package", range(beyond))
    factory.world.row.effects += channel.version - expected.versions


def _count_blobs(
    factory: Factory, pipelines: Iterable[pb2.Pipeline], packages: Mapping[str, pb2.Package]
) -> None:
    """Hold the store to what was reported; what else is there may be evidence of a stage that was killed."""
    digests = {name.partition("/")[2] for name in packages}
    told = {
        digest
        for pipeline in pipelines
        for stage in pipeline.stages
        for digest in (*stage.inputs.values(), *stage.outputs.values())
    }
    stored: set[str] = set()
    for path in (one for one in factory.store.rglob("*") if one.is_file()):
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != path.name:
            factory.world.row.problems.append(f"in the store, and not what its name says: {path}")
        elif path.name not in told and not _is_json(content):
            _doubled(factory, "stored bytes that belong to no stage", [path.name])
        stored.add(path.name)
    _lost(factory, "packages that are not in the store", digests - stored)
    outputs = {one for pipeline in pipelines for stage in pipeline.stages for one in stage.outputs.values()}
    _lost(factory, "bytes that stages reported", outputs - stored)


def _is_json(content: bytes) -> bool:
    """Whether bytes are a document or some lines of evidence, and so no package."""
    return _parses([content]) or _parses(content.splitlines())


def _parses(texts: Iterable[bytes]) -> bool:
    try:
        return all(isinstance(json.loads(text), dict | list) for text in texts)
    except ValueError:
        return False


async def _count_again(factory: Factory, before: Mapping[str, pb2.Pipeline]) -> None:
    """Have the same artefacts packaged once more, with nobody killed: the bytes have to be the same."""
    callers = factory.callers
    names = dict(callers.acknowledged)
    again = {one: await callers.package(f"{_AGAIN}{one}", callers.artefacts[one]) for one in names}
    for request_id, name in again.items():
        pipeline, first = await callers.ended(name), before.get(names[request_id])
        if first is not None and (_made(pipeline) != _made(first) or not pipeline.package):
            _lost(
                factory,
                "packages that are not the same as without a kill",
                {f"{callers.artefacts[request_id].name}: {first.package}, {pipeline.package}"},
            )
    found = await callers.packages()
    wanted = {one.package for one in before.values()}
    _doubled(factory, "packages of the same artefacts", [one.name for one in found if one.name not in wanted])
    factory.world.row.pipelines = len(callers.acknowledged)


def _made(pipeline: pb2.Pipeline) -> dict[str, str]:
    """Return the digests of the bytes that a pipeline made: unsigned and as agents get them."""
    made = {"package": pipeline.package}
    for stage in pipeline.stages:
        if Stage(stage.stage) in (Stage.BUILD, Stage.SIGN):
            made |= {name: one for name, one in stage.outputs.items() if name != "provenance"}
    return made


def _lost(factory: Factory, what: str, which: Collection[str]) -> None:
    if which:
        factory.world.row.lost += len(which)
        factory.world.row.problems.append(f"lost, {what}: {len(which)}, among them {min(which)}")


def _doubled(factory: Factory, what: str, which: Collection[object]) -> None:
    if which:
        factory.world.row.doubled += len(which)
        factory.world.row.problems.append(
            f"doubled, {what}: {len(which)}, among them {sorted(map(str, which))[0]}"
        )
