"""Watching all pipelines: the service's messages, one pipeline at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fleetwright.v1.agent_registry_service_pb2 import CHANGE_TYPE_CHANGED, CHANGE_TYPE_SYNCED
from fleetwright.v1.packaging_service_pb2 import Pipeline, WatchPipelinesRequest

from controlplane.cli.connection import Client
from controlplane.cli.output import Output, as_dict
from controlplane.cli.packages.pipeline_views import columns
from controlplane.cli.watching import Watched, watch


@dataclass(frozen=True, slots=True)
class PipelineChange:
    """One pipeline of a message, or none where nothing matches yet.

    ``resume_token`` is empty but for the last one of a message.
    """

    pipeline: Pipeline | None
    resume_token: str

    @property
    def change_type(self) -> int:
        """What kind of change it is, in the words of the other watches."""
        return CHANGE_TYPE_SYNCED if self.pipeline is None else CHANGE_TYPE_CHANGED

    def as_dict(self) -> dict[str, Any]:
        """Return what programs get."""
        pipeline = None if self.pipeline is None else as_dict(self.pipeline)
        return {"pipeline": pipeline, "resumeToken": self.resume_token}


def watch_pipelines(client: Client, output: Output, filter_: str) -> None:
    """Show the pipelines that match and every change of them, until Ctrl-C. Raises ``grpc.RpcError``."""

    def start(token: str) -> Iterator[PipelineChange]:
        return _changes(client, WatchPipelinesRequest(filter=filter_, resume_token=token))

    watch(client, output, start, Watched("pipeline", columns, "pipelines", has_kinds=False))


def _changes(client: Client, request: WatchPipelinesRequest) -> Iterator[PipelineChange]:
    call = client.packaging.WatchPipelines(request)
    try:
        for response in call:
            if not response.pipelines:
                yield PipelineChange(None, response.resume_token)
            last = len(response.pipelines) - 1
            for place, pipeline in enumerate(response.pipelines):
                # A watch that is begun again in the middle of a message gets all of it again.
                yield PipelineChange(pipeline, response.resume_token if place == last else "")
    finally:
        call.cancel()
