"""Use cases of pipelines. Workers find by themselves what is queued here, see ``dispatching``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from fleetwright.manifest import ManifestError

from controlplane.callers import Caller
from controlplane.clock import Clock, to_micros
from controlplane.errors import FailedPrecondition, NotFound, invalid
from controlplane.filtering import BoundFilter
from controlplane.ids import new_id
from controlplane.packaging.advisories import vex
from controlplane.packaging.building.errors import BuildFailed
from controlplane.packaging.building.platforms import parse_platform
from controlplane.packaging.building.provenance import check_source
from controlplane.packaging.given import read_given
from controlplane.packaging.paging import Asked, Page, Pages, Place
from controlplane.packaging.requests import Request, refuse_nul
from controlplane.packaging.rules import Decision, PipelineState, Stage, StageState
from controlplane.packaging.running import TOPIC
from controlplane.packaging.store import pipelines as stored
from controlplane.packaging.store import queue, uploads
from controlplane.packaging.store.pipelines import PipelineRecord, StageRecord
from controlplane.storage.database import Database
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.wakeups import WakeUps

Channels = Callable[[], Awaitable[Collection[str]]]
"""Returns the channels that packages can be released to.

Raises ``FailedPrecondition`` TRUST_NOT_SET_UP where nothing can be signed.
"""


@dataclass(frozen=True, slots=True)
class NewPipeline:
    """What a caller wants to be made of an artefact; empty texts for what the server decides."""

    artefact: str
    target_platform: str = ""
    channel: str = ""
    on_demand: bool = False
    build_id: str = ""
    source_repository: str = ""
    source_commit: str = ""
    manifest: str = ""
    """JSON."""
    vex: str = ""
    """An OpenVEX document."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A pipeline as callers see it: with its stages, or at least with what SIGN found."""

    pipeline: PipelineRecord
    signatures: Sequence[Mapping[str, str]] = ()
    stages: Sequence[StageRecord] = ()


class PipelinesService:
    """Creation, questions, cancellation and retries of pipelines."""

    def __init__(
        self,
        database: Database,
        wakeups: WakeUps,
        clock: Clock,
        pages: Pages,
        default_channel: str,
        channels: Channels,
    ) -> None:
        self._database = database
        self._wakeups = wakeups
        self._clock = clock
        self._pages = pages
        self._default_channel = default_channel
        self._channels = channels

    # --- creation

    async def create(self, caller: Caller, new: NewPipeline, request_id: str) -> Shown:
        """Queue an artefact for the factory, or let it wait for ``execute``.

        Raises ``NotFound`` ARTEFACT_UNKNOWN, ``FailedPrecondition`` TRUST_NOT_SET_UP, and
        ``InvalidArgument`` for a field that cannot be right and REQUEST_ID_REUSED.
        """
        new = replace(new, channel=new.channel or self._default_channel)
        await asyncio.to_thread(_check, new)
        _check_channel(new.channel, await self._channels())
        request = Request.of(caller.spiffe_id, request_id, "pipeline", new)
        async with self._database.unit_of_work() as work:
            made = await request.made(work)
            if made is None:
                made = await self._insert(work, caller, new)
                await request.has_made(work, made, self._now())
        return await self.get(made)

    async def _insert(self, work: UnitOfWork, caller: Caller, new: NewPipeline) -> str:
        artefact = await uploads.find_artefact(work.connection, new.artefact)
        if artefact is None:
            raise NotFound(
                "ARTEFACT_UNKNOWN", f"artefact: there is no artefacts/{new.artefact}; upload it first"
            )
        now = self._now()
        pipeline_id = new_id(now)
        record = PipelineRecord(
            pipeline_id=pipeline_id,
            artefact=new.artefact,
            file_name=artefact.file_name,
            artefact_type="",
            target_platform=new.target_platform,
            package_name="",
            package_version="",
            channel=new.channel,
            state=PipelineState.CREATED if new.on_demand else PipelineState.QUEUED,
            state_time=now,
            reason="",
            stage=None,
            counts=None,
            decision=Decision.UNJUDGED,
            build_id=new.build_id or pipeline_id,
            source_repository=new.source_repository,
            source_commit=new.source_commit,
            manifest=new.manifest,
            vex=new.vex,
            package=None,
            creator=caller.spiffe_id,
            create_time=now,
            update_time=now,
            run_count=0 if new.on_demand else 1,
            fence=0,
            cancel_requested=False,
            revision=0,
        )
        await stored.insert_pipeline(work, record)
        self._tell(work)
        return pipeline_id

    # --- changes of state

    async def execute(self, pipeline_id: str) -> Shown:
        """Queue a pipeline that waits to be executed; one that was begun already is left as it is.

        Raises ``NotFound`` PIPELINE_UNKNOWN, ``FailedPrecondition`` PIPELINE_STATE and TRUST_NOT_SET_UP.
        """
        await self._channels()
        async with self._database.unit_of_work() as work:
            found = await self._locked(work, pipeline_id)
            if found.state.final:
                raise _refused(found, "has ended; create another one, or retry one that ended in error")
            if found.state is PipelineState.CREATED:
                await self._move(work, found, PipelineState.QUEUED, run_count=1)
        return await self.get(pipeline_id)

    async def cancel(self, caller: Caller, pipeline_id: str) -> Shown:
        """End a pipeline: at once while it waits, else where it runs; again is the same.

        Raises ``NotFound`` PIPELINE_UNKNOWN, ``FailedPrecondition`` PIPELINE_STATE where it ended otherwise.
        """
        async with self._database.unit_of_work() as work:
            found = await self._locked(work, pipeline_id)
            if found.state is PipelineState.RUNNING:
                await stored.change(work, pipeline_id, cancel_requested=True, update_time=self._now())
                self._tell(work)
            elif not found.state.final:
                reason = f"cancelled by {caller.spiffe_id}"
                await self._move(work, found, PipelineState.CANCELLED, reason=reason)
            elif found.state is not PipelineState.CANCELLED:
                raise _refused(found, "has ended and can no longer change")
        return await self.get(pipeline_id)

    async def retry(self, pipeline_id: str) -> Shown:
        """Queue a pipeline again that ended in error; stages that were done are not done again.

        Raises ``NotFound`` PIPELINE_UNKNOWN, ``FailedPrecondition`` PIPELINE_STATE and TRUST_NOT_SET_UP.
        """
        await self._channels()
        async with self._database.unit_of_work() as work:
            found = await self._locked(work, pipeline_id)
            if found.state is not PipelineState.ERROR:
                raise _refused(found, "did not end in error; only those can be retried")
            if found.stage is not None:
                await stored.change_stage(
                    work, pipeline_id, found.stage, state=int(StageState.PENDING), reason="", reason_code=""
                )
            await self._move(
                work, found, PipelineState.QUEUED, run_count=found.run_count + 1, cancel_requested=False
            )
        return await self.get(pipeline_id)

    async def _locked(self, work: UnitOfWork, pipeline_id: str) -> PipelineRecord:
        found = await stored.find(work.connection, pipeline_id, lock=True)
        if found is None:
            raise unknown(pipeline_id)
        return found

    async def _move(
        self, work: UnitOfWork, found: PipelineRecord, to: PipelineState, reason: str = "", **more: int
    ) -> None:
        now = self._now()
        await stored.change(
            work,
            found.pipeline_id,
            state=int(to),
            state_time=now,
            update_time=now,
            reason=reason,
            **more,
        )
        self._tell(work)

    def _tell(self, work: UnitOfWork) -> None:
        work.after_commit(lambda: self._wakeups.notify(TOPIC))

    def _now(self) -> int:
        return to_micros(self._clock.now())

    # --- questions

    async def get(self, pipeline_id: str) -> Shown:
        """Return a pipeline with its stages. Raises ``NotFound`` PIPELINE_UNKNOWN."""
        async with self._database.reading() as connection:
            found = await stored.find(connection, pipeline_id)
            stages = await stored.stages(connection, [pipeline_id])
        if found is None:
            raise unknown(pipeline_id)
        return shown(found, stages.get(pipeline_id, []))

    async def list_pipelines(self, asked: Asked) -> Page[Shown]:
        """Return a page of pipelines, newest first, without their stages. Raises ``InvalidArgument``."""
        page = await self._pages.of("pipelines", stored.FILTER, self, _place, asked)
        return replace(page, rows=await self._with_signatures([one.pipeline for one in page.rows]))

    async def page(self, chosen: BoundFilter, before: Place | None, limit: int) -> list[Shown]:
        """Return pipelines that match, newest first, from behind a place on; bare, see ``Listing``."""
        async with self._database.reading() as connection:
            return [Shown(one) for one in await stored.page(connection, chosen, before, limit)]

    async def count(self, chosen: BoundFilter) -> int:
        """Return how many pipelines match."""
        async with self._database.reading() as connection:
            return await stored.count(connection, chosen)

    async def counts(self) -> dict[PipelineState, int]:
        """Return how many pipelines are in each state that is not final."""
        async with self._database.reading() as connection:
            return await queue.counts(connection)

    async def _with_signatures(self, found: Sequence[PipelineRecord]) -> list[Shown]:
        async with self._database.reading() as connection:
            signed = await stored.outcomes(connection, [one.pipeline_id for one in found], Stage.SIGN)
        return [Shown(one, signed.get(one.pipeline_id, {}).get("signatures", ())) for one in found]


def shown(pipeline: PipelineRecord, stages: Sequence[StageRecord]) -> Shown:
    """Return a pipeline as callers see it."""
    signed = next((one.outcome for one in stages if one.stage is Stage.SIGN), {})
    return Shown(pipeline, signed.get("signatures", ()), stages)


def unknown(pipeline_id: str) -> NotFound:
    """Return the refusal of a name that no pipeline has."""
    return NotFound(
        "PIPELINE_UNKNOWN", f"name: there is no pipelines/{pipeline_id}; list them to see which there are"
    )


def _place(one: Shown) -> Place:
    return one.pipeline.create_time, one.pipeline.pipeline_id


def _refused(found: PipelineRecord, why: str) -> FailedPrecondition:
    return FailedPrecondition(
        "PIPELINE_STATE", f"name: pipelines/{found.pipeline_id} is {found.state.name}: it {why}"
    )


def _check(new: NewPipeline) -> None:
    refuse_nul(
        build_id=new.build_id,
        source_repository=new.source_repository,
        source_commit=new.source_commit,
        manifest=new.manifest,
        vex=new.vex,
    )
    try:
        read_given(new.manifest)
    except ManifestError as error:
        raise invalid("manifest", str(error)) from None
    try:
        check_source(new.source_repository, new.source_commit)
        if new.target_platform:
            parse_platform(new.target_platform)
    except BuildFailed as error:
        raise invalid(error.member, error.message) from None
    if new.vex:
        _check_vex(new.vex)


def _check_channel(channel: str, known: Collection[str]) -> None:
    if channel not in known:
        raise invalid(
            "channel",
            f"{channel!r} is none of this server's: {', '.join(sorted(known))}; a new one is delegated to by "
            "those who hold the offline keys",
        )


def _check_vex(text: str) -> None:
    try:
        vex.parse(text.encode())
    except vex.VexError as error:
        raise invalid("vex", str(error)) from None
