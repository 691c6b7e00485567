"""What agents fetch of packages: metadata at once, bytes as a stream that ends with their certificate."""

from __future__ import annotations

from contextlib import aclosing
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc
from fleetwright.v1 import agent_service_pb2 as pb2

from controlplane.callers import Caller
from controlplane.clock import Clock, to_micros
from controlplane.errors import Unauthenticated
from controlplane.identity.service import IdentityService
from controlplane.packaging.agent_downloads import AgentDownloads
from controlplane.sessions.registry import revoked
from controlplane.sessions.writing import write
from controlplane.transport.context import current_caller
from controlplane.transport.patience import Patience
from controlplane.transport.standing import CHECKED_EVERY, while_admitted

if TYPE_CHECKING:
    # A generic class only to the type checker.
    Context = grpc.aio.ServicerContext[Any, Any]


class PackageStreams:
    """Serves FetchMetadata and DownloadArtefact.

    They hang on no session: an agent that goes on with an installation after a restart may fetch before it
    has said Hello. So the certificate is judged at each call, and again while bytes go out.
    """

    def __init__(
        self, downloads: AgentDownloads, identity: IdentityService, clock: Clock, slow_reader_after: timedelta
    ) -> None:
        self._downloads = downloads
        self._identity = identity
        self._clock = clock
        self._writing = Patience(slow_reader_after)

    async def fetch_metadata(self, request: pb2.FetchMetadataRequest) -> pb2.FetchMetadataResponse:
        """Return a file of the metadata. Raises the ``ServiceError`` that refuses it."""
        await self._identity.admit(current_caller())
        return pb2.FetchMetadataResponse(content=await self._downloads.metadata(request.file_name))

    async def download(self, request: pb2.DownloadArtefactRequest, context: Context) -> None:
        """Send what is asked for; raises the ``ServiceError`` that refuses or ends it."""
        caller = current_caller()
        await self._identity.admit(caller)
        await while_admitted(self._send(caller, request, context), lambda: self._check(caller), CHECKED_EVERY)

    async def _send(self, caller: Caller, request: pb2.DownloadArtefactRequest, context: Context) -> None:
        pieces = self._downloads.artefact(caller.name, request.sha256, request.offset)
        async with aclosing(pieces) as going:
            async for piece in going:
                message = pb2.DownloadArtefactResponse(
                    offset=piece.offset, data=piece.data, total_bytes=piece.total
                )
                await write(context, message, self._writing)

    def _check(self, caller: Caller) -> None:
        if self._identity.is_denied(caller.serial):
            raise revoked(caller.name)
        if to_micros(self._clock.now()) > caller.not_after:
            raise Unauthenticated(
                "CERTIFICATE_EXPIRED",
                f"client certificate: the one of agent {caller.name!r} has ended; go on with the next one",
            )
