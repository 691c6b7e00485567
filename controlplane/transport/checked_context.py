"""The context that handlers get: the same as gRPC's, with messages checked and counted.

``read`` gives valid messages only. It raises ``InvalidArgument`` for another, and
``ResourceExhausted`` for one that is too long; a handler that lets them pass ends the
stream with VALIDATION_FAILED or LIMIT_EXCEEDED.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Never

from grpc import StatusCode
from grpc.aio import EOF, AbortError, ServicerContext
from prometheus_client import Counter


class CheckedContext(ServicerContext[Any, Any]):
    """Wraps the context of one call."""

    def __init__(
        self,
        context: ServicerContext[Any, Any],
        parse: Callable[[bytes], Any],
        received: Counter,
        sent: Counter,
    ) -> None:
        self._context = context
        self._parse = parse
        self._count_received = received.inc
        self._count_sent = sent.inc
        self.aborted_with: StatusCode | None = None
        """The code of an abort by the handler itself; gRPC does not keep it."""

    async def read(self) -> Any:
        """Return the next valid message, or ``grpc.aio.EOF`` after the last one."""
        data = await self._context.read()
        if data is EOF:
            return data
        self._count_received()
        return self._parse(data)

    async def write(self, message: Any) -> None:
        """Send a message. Returning says nothing of its arrival."""
        await self._context.write(message)
        self._count_sent()

    def __aiter__(self) -> CheckedContext:
        """Iterate over the messages, for handlers that take an iterator."""
        return self

    async def __anext__(self) -> Any:
        message = await self.read()
        if message is EOF:
            raise StopAsyncIteration
        return message

    async def abort(self, code: StatusCode, details: str = "", trailing_metadata: Any = ()) -> Never:
        """End the call; raise a ``ServiceError`` instead wherever the reason matters."""
        self.aborted_with = code
        await self._context.abort(code, details, trailing_metadata)
        raise AbortError

    async def abort_with_status(self, status: Any) -> Never:
        """End the call with a rich status."""
        self.aborted_with = status.code
        await self._context.abort_with_status(status)
        raise AbortError

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        """Send the headers of the answer."""
        await self._context.send_initial_metadata(initial_metadata)

    def add_done_callback(self, callback: Any) -> None:
        """Call ``callback`` at the end of the call."""
        self._context.add_done_callback(callback)

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """Set the trailers of the answer."""
        self._context.set_trailing_metadata(trailing_metadata)

    def invocation_metadata(self) -> Any:
        """Return the headers of the call."""
        return self._context.invocation_metadata()

    def set_code(self, code: StatusCode) -> None:
        """Set the status code of the answer."""
        self._context.set_code(code)

    def set_details(self, details: str) -> None:
        """Set the text of the status."""
        self._context.set_details(details)

    def set_compression(self, compression: Any) -> None:
        """Compress the answers."""
        self._context.set_compression(compression)

    def disable_next_message_compression(self) -> None:
        """Do not compress the next answer."""
        self._context.disable_next_message_compression()

    def peer(self) -> str:
        """Return the address of the other end."""
        return self._context.peer()

    def peer_identities(self) -> Any:
        """Return gRPC's own guess of the peer; never authorise on it."""
        return self._context.peer_identities()

    def peer_identity_key(self) -> str | None:
        """Return where ``peer_identities`` comes from."""
        return self._context.peer_identity_key()

    def auth_context(self) -> Any:
        """Return what TLS knows of the peer."""
        return self._context.auth_context()

    def time_remaining(self) -> float:
        """Return the seconds of the client's own deadline."""
        return self._context.time_remaining()

    def trailing_metadata(self) -> Any:
        """Return the trailers set so far."""
        return self._context.trailing_metadata()

    def code(self) -> StatusCode:
        """Return the code set so far."""
        return self._context.code()

    def details(self) -> str:
        """Return the text set so far."""
        return self._context.details()

    def cancelled(self) -> bool:
        """Return whether the call was cancelled; measured, it stays False for a client that went away."""
        return self._context.cancelled()

    def done(self) -> bool:
        """Return whether the call is over."""
        return self._context.done()
