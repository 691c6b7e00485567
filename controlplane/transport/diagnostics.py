"""What operators look at a running server with: reflection, channelz, health."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from importlib.resources import files
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.rpc import error_details_pb2, status_pb2
from grpc_channelz.v1 import channelz
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection, reflection_pb2

from controlplane.transport.methods import METHODS

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_SERVICES = frozenset(method.service for method in METHODS.values())
_REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"


class Health:
    """Whether this process serves, as every listener tells it (grpc/grpc, doc/health-checking.md).

    NOT_SERVING until ``serving`` is called, so that no probe sends traffic to a process that starts.
    """

    def __init__(self) -> None:
        self._servicer = health_aio.HealthServicer()
        self.ready = False

    async def serving(self) -> None:
        """Say SERVING for the server and each of its services."""
        await self._set(True)

    async def not_serving(self) -> None:
        """Say NOT_SERVING: at the start, and first of all at a drain."""
        await self._set(False)

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve it on ``server``."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def _set(self, ready: bool) -> None:
        self.ready = ready
        for service in ("", *sorted(_SERVICES)):
            await self._servicer.set(service, _SERVING if ready else _NOT_SERVING)


def add_reflection(server: grpc.aio.Server, services: Iterable[str]) -> None:
    """Serve reflection of ``services``, under the name v1 that tools ask for first and under v1alpha."""
    # v1 is served and not named: the library has no descriptor of it, and tools ask for those of all names.
    names = sorted({*services, reflection.SERVICE_NAME} - {_REFLECTION_V1})
    pool = _published(names)
    reflection.enable_server_reflection(names, server, pool)
    # The two versions are the same on the wire; the library has only the older name.
    handler = grpc.stream_stream_rpc_method_handler(
        reflection.aio.ReflectionServicer(names, pool).ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(_REFLECTION_V1, {"ServerReflectionInfo": handler}),)
    )


class _Symbols:
    """A pool that finds methods too, as the reflection protocol has it; the library's own does not."""

    def __init__(self, pool: descriptor_pool.DescriptorPool) -> None:
        self._pool = pool

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802 - a pool's own name
        """Return the file that declares a symbol by its full name; KeyError where none does."""
        service, _, method = symbol.rpartition(".")
        with suppress(KeyError):
            found = self._pool.FindServiceByName(service)
            if method in found.methods_by_name:
                return found.file
        return self._pool.FindFileContainingSymbol(symbol)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)


def _published(services: Iterable[str]) -> Any:
    """Return the contract as it is published, and what else describes ``services`` and their refusals.

    The stubs do not know the file that declares the validation rules (docs/decisions/0012); whoever asks
    what a field means should see its rules.
    """
    pool = descriptor_pool.DescriptorPool()
    contract = files("fleetwright").joinpath("contract.binpb").read_bytes()
    known = set()
    for file in FileDescriptorSet.FromString(contract).file:
        pool.Add(file)
        known.add(file.name)

    def add(file: FileDescriptor) -> None:
        if file.name in known:
            return
        known.add(file.name)
        for dependency in file.dependencies:
            add(dependency)
        described = FileDescriptorProto()
        file.CopyToProto(described)
        for message in described.message_type:
            _name_in_json(file.message_types_by_name[message.name], message)
        pool.Add(described)

    for service in services:
        if not service.startswith("fleetwright."):
            add(descriptor_pool.Default().FindFileContainingSymbol(service))
    # No method names them: they travel as Any in a status, and tools decode only what they can ask for.
    for details in (error_details_pb2.DESCRIPTOR, status_pb2.DESCRIPTOR):
        add(details)
    return _Symbols(pool)


def _name_in_json(message: Descriptor, described: DescriptorProto) -> None:
    """Give fields their names in JSON: libraries come without them, and tools do not make them up."""
    for field in described.field:
        field.json_name = message.fields_by_name[field.name].json_name
    for nested in described.nested_type:
        _name_in_json(message.nested_types_by_name[nested.name], nested)


def add_channelz(server: grpc.aio.Server) -> None:
    """Serve channelz: the sockets and calls of this process."""
    channelz.add_channelz_servicer(server)
