"""What every call passes before and after its handler, in this order:

1. request id, from the header ``x-request-id`` or made here;
2. the method table: a method that this listener does not list is refused;
3. authentication: one URI SAN of this trust domain, not expired, not denied;
4. authorisation by the kind of identity, from the method table;
5. the rate limit of this caller for this method;
6. parsing and validation of every message (streams: at each ``read``);
7. the server's own deadline, for unary calls; for streams to an administrator, the end of its certificate;
8. the handler;
9. errors become one rich status, defects an incident id;
10. metrics, and an audit line where the table asks for one.

gRPC shows an interceptor only the method handler, so the handler is wrapped, once
for each method. Bytes are parsed here and not by gRPC, whose text for a message
that does not parse would reach the wire.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from grpc import StatusCode
from grpc.aio import AbortError, ServerInterceptor, ServicerContext

from controlplane.callers import ANONYMOUS, Caller, IdentityKind
from controlplane.errors import PermissionDenied, ServiceError
from controlplane.observability.metrics import Metrics
from controlplane.transport import audit, channel_options, context, errors, standing
from controlplane.transport.call_metrics import CallMetrics, count_unknown
from controlplane.transport.checked_context import CheckedContext
from controlplane.transport.errors import DeadlineExceeded, MethodUnknown
from controlplane.transport.methods import METHODS, Listener, Method, for_listener
from controlplane.transport.patience import OutOfPatienceError, Patience
from controlplane.transport.peers import Peers
from controlplane.transport.rate_limits import RateLimits
from controlplane.transport.standing import while_admitted
from controlplane.transport.validation import parser

REQUEST_ID_HEADER = "x-request-id"

_MESSAGE_BYTES = {
    Listener.AGENTS: channel_options.AGENT_MESSAGE_BYTES,
    Listener.ADMIN: channel_options.ADMIN_MESSAGE_BYTES,
    Listener.ENROLLMENT: channel_options.ENROLLMENT_MESSAGE_BYTES,
    Listener.HEALTH: channel_options.HEALTH_MESSAGE_BYTES,
}
_CLOCK_BEHIND = 0.1
"""Seconds that a call may have been on its way longer than its reset."""
_ROUNDED_UP = 0.02
"""Share of a call's whole time that gRPC's header may add to it."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

_log = structlog.get_logger(__name__)

if TYPE_CHECKING:  # generic in the type stubs only
    Handler = grpc.RpcMethodHandler[Any, Any]


@dataclass(slots=True)
class _Call:
    """One call on its way through."""

    context: CheckedContext
    caller: Caller | None = None
    request: Any = None
    response: Any = None
    code: StatusCode = StatusCode.OK
    reason: str = ""
    began: float = field(default_factory=perf_counter)

    def fail(self, error: Exception) -> None:
        """Note what the call is refused with."""
        self.response = None
        self.reason = errors.reason_of(error)
        self.code = errors.code_of(error) if isinstance(error, ServiceError) else StatusCode.INTERNAL


class CallInterceptor(ServerInterceptor):
    """The one interceptor of a listener.

    ``peers`` is None on a listener whose TLS asks for no client certificate: its callers are anonymous.
    """

    def __init__(
        self,
        listener: Listener,
        *,
        peers: Peers | None,
        metrics: Metrics,
        limits: RateLimits | None = None,
        methods: Mapping[str, Method] = METHODS,
    ) -> None:
        self._listener = listener
        self._methods = for_listener(listener, methods)
        self._peers = peers
        self._metrics = metrics
        self._limits = RateLimits() if limits is None else limits
        self._wrapped: dict[str, Handler] = {}
        self._unknown: Handler = grpc.stream_stream_rpc_method_handler(self._refuse_unknown)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Return the handler of the method, wrapped; for a method that is not listed, one that refuses."""
        name = handler_call_details.method
        wrapped = self._wrapped.get(name)
        if wrapped is not None:
            return wrapped
        method = self._methods.get(name)
        handler = await continuation(handler_call_details) if method is not None else None
        if method is None or handler is None:
            return self._unknown
        wrapped = self._wrapped[name] = self._wrap(method, handler)
        return wrapped

    async def _refuse_unknown(self, _requests: object, call_context: ServicerContext[Any, Any]) -> None:
        count_unknown(self._metrics)
        await errors.abort(
            call_context,
            MethodUnknown(
                "METHOD_UNKNOWN",
                f"the {self._listener.value} listener has no such method; check name and port",
            ),
        )

    def _wrap(self, method: Method, handler: Handler) -> Handler:
        parse = parser(handler.request_deserializer or _raw, _MESSAGE_BYTES[self._listener])
        served = _Served(method, handler, parse, self._peers, self._limits, self._metrics)
        streams_in, streams_out = bool(handler.request_streaming), bool(handler.response_streaming)
        make: Any = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[streams_in, streams_out]
        wrapped: Handler = make(
            served.serve, request_deserializer=None, response_serializer=handler.response_serializer
        )
        return wrapped


class _Served:
    """One method of one listener, as it is served."""

    def __init__(
        self,
        method: Method,
        handler: Handler,
        parse: Callable[[bytes], Any],
        peers: Peers | None,
        limits: RateLimits,
        metrics: Metrics,
    ) -> None:
        self._method = method
        self._peers = peers
        self._limits = limits
        self._metrics = CallMetrics(metrics, method)
        self._parse = parse
        self._log = _log.bind()  # once for a method: at the usual level its debug lines then cost nothing
        self._patience = None if method.deadline is None else Patience(method.deadline)
        self._streams_in = bool(handler.request_streaming)
        self._streams_out = bool(handler.response_streaming)
        # Exactly one of them is set, and which says no more than the two flags above.
        self._behaviour: Any = (
            handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        )

    async def serve(self, data: Any, call_context: ServicerContext[Any, Any]) -> Any:
        """Serve one call; ``data`` is the request's bytes, or gRPC's iterator, which is not used."""
        metrics = self._metrics
        call = _Call(CheckedContext(call_context, self._parse, metrics.received, metrics.sent))
        metrics.started()
        if not self._streams_in:
            metrics.received.inc()  # gRPC has read it, whatever becomes of the call
        failed: Exception | None = None
        try:
            self._admit(call, call_context)
            await self._answer(call, data)
            if self._streams_in:
                # A client that is gone looks like one that has said all; what tells comes at the next await.
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            call.code = _code_of_cancelled(call, call_context)
            raise
        except AbortError:
            call.code = call.context.aborted_with or StatusCode.UNKNOWN
            raise
        except Exception as error:  # noqa: BLE001 # whatever a handler raises must not reach the wire as it is
            call.fail(error)
            failed = error
        finally:
            self._end(call)
        if failed is not None:
            # Counted and logged before: who has the status in hand finds both.
            await errors.abort(call_context, failed)
        return call.response

    def _end(self, call: _Call) -> None:
        seconds = perf_counter() - call.began
        self._metrics.handled(call.code, seconds, call.reason)
        self._log.debug("call ended", code=call.code.name, reason=call.reason, seconds=round(seconds, 6))
        if self._method.audited:
            resource = audit.resource_name(self._method, call.request, call.response)
            audit.record(self._method, call.caller, resource, call.code.name, call.reason)

    def _admit(self, call: _Call, call_context: ServicerContext[Any, Any]) -> None:
        request_id = _request_id(call_context)
        context.set_request_id(request_id)
        structlog.contextvars.bind_contextvars(request_id=request_id, method=self._method.name)
        caller = ANONYMOUS if self._peers is None else self._peers.identify(call_context.auth_context())
        call.caller = caller
        agent = {"agent": caller.name} if caller.kind is IdentityKind.AGENT else {}
        structlog.contextvars.bind_contextvars(actor=caller.spiffe_id or "anonymous", **agent)
        context.set_caller(caller)
        if caller.kind not in self._method.callers:
            raise PermissionDenied(
                "IDENTITY_NOT_ALLOWED",
                f"{self._method.name}: not for {caller.kind.value} identities; use one of another kind",
            )
        self._limits.take(self._method, caller.spiffe_id or _address(call_context.peer()))

    async def _answer(self, call: _Call, data: Any) -> None:
        if self._streams_in:
            request = call.context
        else:
            request = call.request = self._parse(data)
        running = self._run(call, request)
        if self._patience is not None:
            await self._within(self._patience, running)
        elif self._peers is not None and call.caller and call.caller.kind is not IdentityKind.AGENT:
            # Streams of agents are ended by their sessions, which say why.
            await while_admitted(running, partial(self._peers.check, call.caller), standing.CHECKED_EVERY)
        else:
            await running

    async def _within(self, patience: Patience, running: Coroutine[Any, Any, None]) -> None:
        context.set_remaining(patience.length)
        try:
            await patience.wait(running)
        except OutOfPatienceError as error:
            seconds = patience.length.total_seconds()
            raise DeadlineExceeded(
                "DEADLINE_EXCEEDED",
                f"{self._method.name}: not done within {seconds:g} s; ask for less, or try again",
            ) from error

    async def _run(self, call: _Call, request: Any) -> None:
        try:
            answer = self._behaviour(request, call.context)
        except NotImplementedError as error:
            raise MethodUnknown("METHOD_UNKNOWN", f"{self._method.name}: not served here") from error
        if hasattr(answer, "__aiter__"):
            async for message in answer:
                await call.context.write(message)
            return
        response = await answer
        if not self._streams_out:
            call.response = response
            self._metrics.sent.inc()


def _code_of_cancelled(call: _Call, call_context: ServicerContext[Any, Any]) -> StatusCode:
    """Return what the caller of a cancelled call sees: the end of its own deadline, or its own doing.

    A client out of time resets its call, and its clock ends first: ours began when the call came, and
    gRPC rounds the time that it sends up.
    """
    left = call_context.time_remaining()
    if left is None:
        return StatusCode.CANCELLED
    behind = _CLOCK_BEHIND + _ROUNDED_UP * (perf_counter() - call.began + left)
    return StatusCode.CANCELLED if left > behind else StatusCode.DEADLINE_EXCEEDED


def _raw(data: bytes) -> bytes:
    return data


def _request_id(call_context: ServicerContext[Any, Any]) -> str:
    for name, value in call_context.invocation_metadata() or ():
        if name == REQUEST_ID_HEADER and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
            return value
    return secrets.token_hex(8)


def _address(peer: str) -> str:
    """Return the host of gRPC's ``ipv4:192.0.2.1:1234``: anonymous callers share a limit by host."""
    return peer.rpartition(":")[0] or peer
