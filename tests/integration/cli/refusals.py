"""How a scripted server refuses: a ``Refusal`` that is raised anywhere becomes the status of its call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2


class Refusal(Exception):
    """What a call is answered with; UNAVAILABLE without a reason is a connection that is lost."""

    def __init__(
        self, code: grpc.StatusCode, reason: str = "", message: str = "scripted", **metadata: str
    ) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.metadata = code, reason, message, metadata

    async def answer(self, context: Any) -> None:
        status = status_pb2.Status(code=cast(Any, self.code.value)[0], message=self.message)
        if self.reason:
            packed = any_pb2.Any()
            packed.Pack(
                error_details_pb2.ErrorInfo(reason=self.reason, domain="fleetwright", metadata=self.metadata)
            )
            status.details.append(packed)
        trailing = (("grpc-status-details-bin", status.SerializeToString()),) if self.reason else ()
        await context.abort(self.code, self.message, trailing)


LOST = Refusal(grpc.StatusCode.UNAVAILABLE, message="connection lost")


class Answers(grpc.aio.ServerInterceptor):
    """Turns a ``Refusal`` into the status that it is."""

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = await continuation(details)
        if handler is None:
            return None
        streams = handler.response_streaming
        inner = handler.stream_unary or handler.unary_unary or handler.unary_stream
        wrapped = _streaming(inner) if streams else _single(inner)
        kind = (
            grpc.unary_stream_rpc_method_handler
            if streams
            else grpc.stream_unary_rpc_method_handler
            if handler.request_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        return kind(wrapped, handler.request_deserializer, handler.response_serializer)


def _single(inner: Any) -> Any:
    async def call(request: Any, context: Any) -> Any:
        try:
            return await inner(request, context)
        except Refusal as refusal:
            await refusal.answer(context)

    return call


def _streaming(inner: Any) -> Any:
    async def call(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async for message in inner(request, context):
                yield message
        except Refusal as refusal:
            await refusal.answer(context)

    return call
