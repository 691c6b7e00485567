"""Which server a command calls, as whom, and the services of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import grpc
from fleetwright.client import Identity, check_address, connect
from fleetwright.v1 import (
    advisory_service_pb2_grpc,
    agent_registry_service_pb2_grpc,
    delivery_service_pb2_grpc,
    enrollment_token_service_pb2_grpc,
    identity_service_pb2_grpc,
    packaging_service_pb2_grpc,
    server_service_pb2_grpc,
    task_service_pb2_grpc,
    telemetry_service_pb2_grpc,
    trust_service_pb2_grpc,
)

from controlplane.cli.contexts_file import Contexts, written_out
from controlplane.cli.failures import CommandFailed, Exit
from controlplane.settings import ClientSettings
from controlplane.trust.layout import Layout

LOCAL_SERVER: Final = "localhost:7444"
"""Where a server on this machine serves administrators, unless its settings say otherwise."""

CALL_TIMEOUT: Final = timedelta(seconds=15)


@dataclass(frozen=True)
class Options:
    """What the command line says of the connection; None where it says nothing."""

    server: str | None = None
    identity: Path | None = None
    context: str | None = None
    data_dir: Path | None = None
    timeout: timedelta = CALL_TIMEOUT


@dataclass(frozen=True)
class Target:
    """The server to call, and the folder of the identity to call it as."""

    server: str
    identity: Path


class NoServerNamed(CommandFailed):
    """Nothing says which server to call as whom."""


def target_of(options: Options, settings: ClientSettings) -> Target:
    """Decide which server to call as whom.

    What is said nearer wins: options, the context that an option names, the environment, the context that the
    environment names, the file's current context, and last the data folder of a server on this machine.
    A data folder that is named by an option is the identity, and no context's server goes with it.
    Raises ``CommandFailed`` where nothing says it, and for a context that does not exist.
    """
    if options.context is not None and options.data_dir is not None:
        raise CommandFailed("--context and --data-dir: each of them says who calls; give one", Exit.USAGE)
    server, identity = options.server, options.identity
    if options.data_dir is not None:
        identity = identity or _first_operator(options.data_dir)
        server = server or settings.server or LOCAL_SERVER
    elif options.context is not None:
        context = Contexts.load(settings.config_file).get(options.context)
        server, identity = server or context.server, identity or context.folder
    else:
        server, identity = server or settings.server, identity or settings.identity
    if server is None or identity is None:
        server, identity = _fall_back(server, identity, settings)
    return Target(check_address(server), written_out(identity))


def _fall_back(server: str | None, identity: Path | None, settings: ClientSettings) -> tuple[str, Path]:
    """Take what neither an option nor a variable says from a context, or from the data folder here."""
    contexts = Contexts.load(settings.config_file)
    chosen = settings.context or contexts.current
    if chosen:
        context = contexts.get(chosen)
        return server or context.server, identity or context.folder
    local = _first_operator(settings.data_dir)
    if identity is None and not local.is_dir():
        raise NoServerNamed(
            f"no identity is named, and {local} is not there: give --identity FOLDER, or --data-dir, or "
            "make a context with `fleetwright contexts add`",
            Exit.USAGE,
        )
    return server or LOCAL_SERVER, identity or local


def _first_operator(data_dir: Path) -> Path:
    return Layout(data_dir).identity("operator", "admin")


class Client:
    """The services of one server. It connects with the first call; use it as a context manager."""

    def __init__(
        self,
        target: Target | Callable[[], Target],
        timeout: timedelta = CALL_TIMEOUT,
        data_dir: Path | None = None,
    ) -> None:
        """Take the target, or what decides it when it is needed; ``data_dir`` is what the option says."""
        self._decide = target
        self.timeout = timeout
        self.data_dir = data_dir
        self._opened: grpc.Channel | None = None

    @classmethod
    def of(cls, options: Options, settings: ClientSettings) -> Self:
        """Return the client that options and the environment ask for."""
        return cls(lambda: target_of(options, settings), options.timeout, options.data_dir)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opened is not None:
            self._opened.close()

    @cached_property
    def target(self) -> Target:
        """The server, and who calls it; raises ``CommandFailed`` as ``target_of`` does."""
        return self._decide if isinstance(self._decide, Target) else self._decide()

    @cached_property
    def channel(self) -> grpc.Channel:
        """The connection; raises ``fleetwright.errors.IdentityError``."""
        self._opened = connect(self.target.server, Identity.load(self.target.identity))
        return grpc.intercept_channel(self._opened, _Deadline(self.timeout))

    @cached_property
    def agents(self) -> agent_registry_service_pb2_grpc.AgentRegistryServiceStub:
        """Who exists."""
        return agent_registry_service_pb2_grpc.AgentRegistryServiceStub(self.channel)

    @cached_property
    def tasks(self) -> task_service_pb2_grpc.TaskServiceStub:
        """Work."""
        return task_service_pb2_grpc.TaskServiceStub(self.channel)

    @cached_property
    def delivery(self) -> delivery_service_pb2_grpc.DeliveryServiceStub:
        """What became of work, and why."""
        return delivery_service_pb2_grpc.DeliveryServiceStub(self.channel)

    @cached_property
    def telemetry(self) -> telemetry_service_pb2_grpc.TelemetryServiceStub:
        """What agents measure."""
        return telemetry_service_pb2_grpc.TelemetryServiceStub(self.channel)

    @cached_property
    def tokens(self) -> enrollment_token_service_pb2_grpc.EnrollmentTokenServiceStub:
        """Who may let agents in."""
        return enrollment_token_service_pb2_grpc.EnrollmentTokenServiceStub(self.channel)

    @cached_property
    def identities(self) -> identity_service_pb2_grpc.IdentityServiceStub:
        """Operators and integrators."""
        return identity_service_pb2_grpc.IdentityServiceStub(self.channel)

    @cached_property
    def server(self) -> server_service_pb2_grpc.ServerServiceStub:
        """What the server says of itself."""
        return server_service_pb2_grpc.ServerServiceStub(self.channel)

    @cached_property
    def packaging(self) -> packaging_service_pb2_grpc.PackagingServiceStub:
        """The factory, and what it made."""
        return packaging_service_pb2_grpc.PackagingServiceStub(self.channel)

    @cached_property
    def advisories(self) -> advisory_service_pb2_grpc.AdvisoryServiceStub:
        """What is known of vulnerabilities."""
        return advisory_service_pb2_grpc.AdvisoryServiceStub(self.channel)

    @cached_property
    def trust(self) -> trust_service_pb2_grpc.TrustServiceStub:
        """The keys by which packages are released."""
        return trust_service_pb2_grpc.TrustServiceStub(self.channel)


class _CallDetails(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: Any
    compression: Any


class _Deadline(grpc.UnaryUnaryClientInterceptor):
    """Gives every unary call a deadline, so that no command hangs; streams have none."""

    def __init__(self, timeout: timedelta) -> None:
        self._seconds = timeout.total_seconds()

    def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Any], client_call_details: Any, request: Any
    ) -> Any:
        details = client_call_details
        seconds = self._seconds if details.timeout is None else details.timeout
        return continuation(
            _CallDetails(
                details.method,
                seconds,
                details.metadata,
                details.credentials,
                details.wait_for_ready,
                details.compression,
            ),
            request,
        )
