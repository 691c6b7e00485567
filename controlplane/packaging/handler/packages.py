"""Calls of PackagingService about packages, exceptions and deployments."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from fleetwright.v1 import packaging_service_pb2 as pb2
from fleetwright.v1 import packaging_service_pb2_grpc as pb2_grpc

from controlplane.packaging import deploying
from controlplane.packaging.deploying import Deployments
from controlplane.packaging.downloads import Downloads
from controlplane.packaging.exceptions import ExceptionsService
from controlplane.packaging.exporting import Exports
from controlplane.packaging.handler.package_messages import (
    deployment_message,
    exception_message,
    finding_message,
    package_message,
)
from controlplane.packaging.handler.pipeline_messages import ident
from controlplane.packaging.packages import PackagesService
from controlplane.packaging.paging import Asked, Pages
from controlplane.packaging.store import exceptions as stored_exceptions
from controlplane.packaging.store import packages as stored_packages
from controlplane.tasks.messages import batch_message, options_of
from controlplane.tasks.records import Chosen
from controlplane.transport.context import current_caller

if TYPE_CHECKING:
    # A generic class only to the type checker.
    Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class PackageDoors:
    """The services that these calls ask; ``sent`` is told how many bytes went out."""

    pages: Pages
    packages: PackagesService
    exceptions: ExceptionsService
    deployments: Deployments
    downloads: Downloads
    exports: Exports
    sent: Callable[[float], None]


class PackageCalls(pb2_grpc.PackagingServiceServicer):
    """Serves what came out of the factory, and where it goes."""

    _doors: PackageDoors

    async def GetPackage(self, request: pb2.GetPackageRequest, context: Context) -> pb2.GetPackageResponse:
        """Read a package."""
        return pb2.GetPackageResponse(
            package=package_message(await self._doors.packages.get(ident(request.name)))
        )

    async def ListPackages(
        self, request: pb2.ListPackagesRequest, context: Context
    ) -> pb2.ListPackagesResponse:
        """Read a page of packages."""
        page = await self._doors.pages.of(
            "packages",
            stored_packages.FILTER,
            self._doors.packages,
            lambda view: (view.package.create_time, view.package.sha256),
            Asked(request.filter, request.page_size, request.page_token),
        )
        return pb2.ListPackagesResponse(
            packages=[package_message(view) for view in page.rows],
            next_page_token=page.next_page_token,
            total_size=page.total,
        )

    async def ListFindings(
        self, request: pb2.ListFindingsRequest, context: Context
    ) -> pb2.ListFindingsResponse:
        """Read a page of what is known against a package."""
        packages, package = self._doors.packages, ident(request.package)
        page = await self._doors.pages.read(
            "findings",
            lambda before, limit: packages.findings(package, before[0] if before else 0, limit),
            lambda: packages.count_findings(package),
            lambda found: (found.place, ""),
            Asked(page_size=request.page_size, page_token=request.page_token, parent=package),
        )
        return pb2.ListFindingsResponse(
            findings=[finding_message(found) for found in page.rows],
            next_page_token=page.next_page_token,
            total_size=page.total,
        )

    async def DownloadPackage(
        self, request: pb2.DownloadPackageRequest, context: Context
    ) -> AsyncIterator[pb2.DownloadPackageResponse]:
        """Send a range of a part of a package."""
        async for piece in self._doors.downloads.package(
            ident(request.name), request.part, request.offset, request.length
        ):
            self._doors.sent(len(piece.data))
            yield pb2.DownloadPackageResponse(offset=piece.offset, data=piece.data, total_bytes=piece.total)

    async def ExportBundle(
        self, request: pb2.ExportBundleRequest, context: Context
    ) -> AsyncIterator[pb2.ExportBundleResponse]:
        """Send a package with all that verifies it."""
        async with aclosing(self._doors.exports.bundle(ident(request.name))) as pieces:
            async for piece in pieces:
                self._doors.sent(len(piece.data))
                yield pb2.ExportBundleResponse(offset=piece.offset, data=piece.data, total_bytes=piece.total)

    async def DeployPackage(
        self, request: pb2.DeployPackageRequest, context: Context
    ) -> pb2.DeployPackageResponse:
        """Queue installations."""
        batch = await self._doors.deployments.deploy(
            current_caller(),
            ident(request.package),
            Chosen(request.selector, request.percentage or 100, request.seed),
            options_of(request.options),
            request.request_id,
            allow_empty=request.allow_empty,
        )
        return pb2.DeployPackageResponse(batch=batch_message(batch))

    async def ListDeployments(
        self, request: pb2.ListDeploymentsRequest, context: Context
    ) -> pb2.ListDeploymentsResponse:
        """Read a page of deployments."""
        page = await self._doors.pages.of(
            "deployments",
            deploying.FILTER,
            self._doors.deployments,
            lambda one: (one.standing.time, one.task_id),
            Asked(request.filter, request.page_size, request.page_token),
        )
        return pb2.ListDeploymentsResponse(
            deployments=[deployment_message(one) for one in page.rows],
            next_page_token=page.next_page_token,
            total_size=page.total,
        )

    async def CreateException(
        self, request: pb2.CreateExceptionRequest, context: Context
    ) -> pb2.CreateExceptionResponse:
        """Ask for an exception."""
        made = await self._doors.exceptions.create(
            current_caller(),
            ident(request.package),
            request.vulnerability,
            request.justification,
            request.valid_for.ToTimedelta(),
            request.request_id,
        )
        return pb2.CreateExceptionResponse(exception=exception_message(made))

    async def ApproveException(
        self, request: pb2.ApproveExceptionRequest, context: Context
    ) -> pb2.ApproveExceptionResponse:
        """Let an exception count."""
        approved = await self._doors.exceptions.approve(current_caller(), ident(request.name))
        return pb2.ApproveExceptionResponse(exception=exception_message(approved))

    async def RevokeException(
        self, request: pb2.RevokeExceptionRequest, context: Context
    ) -> pb2.RevokeExceptionResponse:
        """End an exception."""
        revoked = await self._doors.exceptions.revoke(current_caller(), ident(request.name))
        return pb2.RevokeExceptionResponse(exception=exception_message(revoked))

    async def ListExceptions(
        self, request: pb2.ListExceptionsRequest, context: Context
    ) -> pb2.ListExceptionsResponse:
        """Read a page of exceptions."""
        page = await self._doors.pages.of(
            "exceptions",
            stored_exceptions.FILTER,
            self._doors.exceptions,
            lambda one: (one.create_time, one.exception_id),
            Asked(request.filter, request.page_size, request.page_token),
        )
        return pb2.ListExceptionsResponse(
            exceptions=[exception_message(one) for one in page.rows],
            next_page_token=page.next_page_token,
            total_size=page.total,
        )
