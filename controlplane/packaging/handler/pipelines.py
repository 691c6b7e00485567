"""Calls of PackagingService about uploads and pipelines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from fleetwright.v1 import packaging_service_pb2 as pb2
from fleetwright.v1 import packaging_service_pb2_grpc as pb2_grpc

from controlplane.packaging.handler.pipeline_messages import (
    ident,
    line_message,
    new_pipeline,
    pipeline_message,
    upload_message,
)
from controlplane.packaging.paging import Asked
from controlplane.packaging.service import PipelinesService
from controlplane.packaging.uploads import Piece, Uploads
from controlplane.packaging.watching import Watches
from controlplane.transport.context import current_caller

if TYPE_CHECKING:
    # A generic class only to the type checker.
    Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class PipelineDoors:
    """The services that these calls ask."""

    uploads: Uploads
    pipelines: PipelinesService
    watches: Watches


class PipelineCalls(pb2_grpc.PackagingServiceServicer):
    """Serves what goes into the factory, and what becomes of it there."""

    _pipeline_doors: PipelineDoors

    async def StartUpload(self, request: pb2.StartUploadRequest, context: Context) -> pb2.StartUploadResponse:
        """Begin an upload."""
        upload = await self._pipeline_doors.uploads.start(
            current_caller().spiffe_id,
            request.file_name,
            request.size_bytes,
            request.sha256,
            request.request_id,
        )
        return pb2.StartUploadResponse(upload=upload_message(upload))

    async def UploadArtefact(
        self, request_iterator: AsyncIterator[pb2.UploadArtefactRequest], context: Context
    ) -> pb2.UploadArtefactResponse:
        """Take pieces of an upload in."""
        upload = await self._pipeline_doors.uploads.take(_pieces(request_iterator))
        return pb2.UploadArtefactResponse(upload=upload_message(upload))

    async def GetUpload(self, request: pb2.GetUploadRequest, context: Context) -> pb2.GetUploadResponse:
        """Say how far an upload is."""
        upload = await self._pipeline_doors.uploads.get(ident(request.name))
        return pb2.GetUploadResponse(upload=upload_message(upload))

    async def CreatePipeline(
        self, request: pb2.CreatePipelineRequest, context: Context
    ) -> pb2.CreatePipelineResponse:
        """Queue an artefact."""
        shown = await self._pipeline_doors.pipelines.create(
            current_caller(), new_pipeline(request), request.request_id
        )
        return pb2.CreatePipelineResponse(pipeline=pipeline_message(shown))

    async def ExecutePipeline(
        self, request: pb2.ExecutePipelineRequest, context: Context
    ) -> pb2.ExecutePipelineResponse:
        """Queue a pipeline that waits for this call."""
        shown = await self._pipeline_doors.pipelines.execute(ident(request.name))
        return pb2.ExecutePipelineResponse(pipeline=pipeline_message(shown))

    async def GetPipeline(self, request: pb2.GetPipelineRequest, context: Context) -> pb2.GetPipelineResponse:
        """Read a pipeline with its stages."""
        shown = await self._pipeline_doors.pipelines.get(ident(request.name))
        return pb2.GetPipelineResponse(pipeline=pipeline_message(shown))

    async def ListPipelines(
        self, request: pb2.ListPipelinesRequest, context: Context
    ) -> pb2.ListPipelinesResponse:
        """Read a page of pipelines."""
        page = await self._pipeline_doors.pipelines.list_pipelines(
            Asked(request.filter, request.page_size, request.page_token)
        )
        return pb2.ListPipelinesResponse(
            pipelines=[pipeline_message(shown) for shown in page.rows],
            next_page_token=page.next_page_token,
            total_size=page.total,
        )

    async def WatchPipelines(
        self, request: pb2.WatchPipelinesRequest, context: Context
    ) -> AsyncIterator[pb2.WatchPipelinesResponse]:
        """Send pipelines as they are and as they change."""
        async with aclosing(
            self._pipeline_doors.watches.pipelines(request.filter, request.resume_token)
        ) as changes:
            async for found, token in changes:
                yield pb2.WatchPipelinesResponse(
                    pipelines=[pipeline_message(shown) for shown in found], resume_token=token
                )

    async def WatchPipelineLog(
        self, request: pb2.WatchPipelineLogRequest, context: Context
    ) -> AsyncIterator[pb2.WatchPipelineLogResponse]:
        """Send the lines of a log."""
        log = self._pipeline_doors.watches.log(
            ident(request.name), request.after_line, follow_it=request.follow
        )
        async with aclosing(log) as pages:
            async for lines in pages:
                yield pb2.WatchPipelineLogResponse(lines=[line_message(line) for line in lines])

    async def CancelPipeline(
        self, request: pb2.CancelPipelineRequest, context: Context
    ) -> pb2.CancelPipelineResponse:
        """End a pipeline."""
        shown = await self._pipeline_doors.pipelines.cancel(current_caller(), ident(request.name))
        return pb2.CancelPipelineResponse(pipeline=pipeline_message(shown))

    async def RetryPipeline(
        self, request: pb2.RetryPipelineRequest, context: Context
    ) -> pb2.RetryPipelineResponse:
        """Queue a pipeline again that ended in error."""
        shown = await self._pipeline_doors.pipelines.retry(ident(request.name))
        return pb2.RetryPipelineResponse(pipeline=pipeline_message(shown))


async def _pieces(requests: AsyncIterator[pb2.UploadArtefactRequest]) -> AsyncIterator[Piece]:
    async for request in requests:
        yield Piece(ident(request.upload), request.offset, request.data)
