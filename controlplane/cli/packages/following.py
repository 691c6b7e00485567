"""Following a pipeline to its end: its log as it is written, its stages as a bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import grpc
from fleetwright.v1.packaging_service_pb2 import (
    PIPELINE_STATE_REFUSED,
    GetPackageRequest,
    GetPipelineRequest,
    Pipeline,
    PipelineLogLine,
    WatchPipelineLogRequest,
)
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from controlplane.cli.connection import Client
from controlplane.cli.output import Output
from controlplane.cli.packages import pipeline_views
from controlplane.cli.packages.words import FINAL, STAGES, stage_name
from controlplane.cli.watching import following


@dataclass(frozen=True, slots=True)
class Step:
    """What is heard of a pipeline: a line of its log, or its end; neither where the call has just begun."""

    resume_token: str
    """Number of the line, so that a call that is cut off goes on after it."""
    line: PipelineLogLine | None = None
    ended: Pipeline | None = None


def steps(client: Client, name: str, token: str) -> Iterator[Step]:
    """Yield the lines of a pipeline's log after line ``token``, and its end; also while it is still running.

    Raises ``grpc.RpcError``. Ends without an end where the server does, before the pipeline.
    """
    # The server has answered before, or nobody would know the pipeline: from here on it is waited for.
    yield Step(token)
    request = WatchPipelineLogRequest(name=name, after_line=int(token or 0), follow=True)
    call = client.packaging.WatchPipelineLog(request)
    try:
        for response in call:
            for line in response.lines:
                yield Step(str(line.number), line)
    finally:
        call.cancel()
    pipeline = pipeline_of(client, name)
    if pipeline.state in FINAL:
        yield Step("", ended=pipeline)


def follow_to_end(
    client: Client, output: Output, name: str, show: Callable[[PipelineLogLine], None], after: int = 0
) -> Pipeline:
    """Show every line of a pipeline's log after line ``after`` until it has ended; return it as it is then.

    Shows the stages as a bar on a terminal. Raises ``grpc.RpcError``.
    """
    with _StageBar(output, name) as bar:
        for step in following(client, lambda token: steps(client, name, token or str(after)), output.note):
            if step.line is not None:
                bar.at(step.line.stage)
                show(step.line)
            if step.ended is not None:
                return step.ended
    raise AssertionError("a watch ends by an error, or is gone on with")


def lines_of(client: Client, name: str) -> Iterator[PipelineLogLine]:
    """Yield the lines of a pipeline's log that there are now. Raises ``grpc.RpcError``."""
    for response in client.packaging.WatchPipelineLog(WatchPipelineLogRequest(name=name)):
        yield from response.lines


def must_be_released(client: Client, pipeline: Pipeline) -> None:
    """Raise ``CommandFailed`` unless agents can have what an ended pipeline made, with policy's reasons."""
    reasons: Sequence[str] = ()
    if pipeline.state == PIPELINE_STATE_REFUSED and pipeline.package:
        request = GetPackageRequest(name=pipeline.package)
        with suppress(grpc.RpcError):  # how it ended is known, and matters more than why
            reasons = client.packaging.GetPackage(request).package.decision_reasons
    pipeline_views.must_be_released(pipeline, reasons)


def pipeline_of(client: Client, name: str) -> Pipeline:
    """Return a pipeline as it is now."""
    pipeline: Pipeline = client.packaging.GetPipeline(GetPipelineRequest(name=name)).pipeline
    return pipeline


class _StageBar:
    """Which stage runs, on a terminal's standard error; nothing elsewhere."""

    def __init__(self, output: Output, name: str) -> None:
        self._bar = _progress(output) if output.errors.is_terminal else None
        self._row: TaskID | None = None
        if self._bar is not None:
            self._row = self._bar.add_task(name, total=len(STAGES), stage="")

    def __enter__(self) -> _StageBar:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_ended: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def at(self, stage: int) -> None:
        """Show the stage that writes to the log; those before it are done."""
        if self._bar is not None and self._row is not None and stage in STAGES:
            self._bar.update(self._row, completed=STAGES.index(stage), stage=stage_name(stage))


def _progress(output: Output) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed} of {task.total} stages", markup=False),
        TextColumn("{task.fields[stage]}", markup=False),
        TimeElapsedColumn(),
        console=output.errors,
        transient=True,
        # What is printed meanwhile goes where it belongs: a file that standard output is stays one.
        redirect_stdout=False,
        redirect_stderr=False,
    )
