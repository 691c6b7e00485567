"""One gRPC stream from the client's side: reading with one kind of failure, writing one at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar, cast

import grpc

from agent_sim.protocol.failures import Failure, failure_of

Request = TypeVar("Request")
Response = TypeVar("Response")


class StreamFailedError(Exception):
    """A stream ended with a status other than OK."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.name)
        self.failure = failure


async def read(call: grpc.aio.StreamStreamCall[Request, Response]) -> Response | None:
    """Return the next message, or None when the server has ended the stream in order.

    Raises StreamFailedError for every other end. Cancelling the caller cancels the
    call, so let a stream that should end cleanly be read to its end.
    """
    try:
        message = await call.read()
    except grpc.aio.AioRpcError as error:
        raise StreamFailedError(failure_of(error)) from None
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        # The call was cancelled, not this task: gRPC tells both in the same way.
        raise StreamFailedError(Failure(grpc.StatusCode.CANCELLED)) from None
    return None if message is grpc.aio.EOF else cast(Response, message)


async def ended(writing: asyncio.Task[None]) -> None:
    """End the task that writes to a call which is over.

    It must be cancelled: a write to a call whose connection went before its metadata
    was sent never returns, and never fails.
    """
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)


class Outlet(Generic[Request]):
    """The write side of a stream: in order, one write at a time, and no task while there is none.

    A write that fails is no news: the read side hears of the same end, with its
    status. What is sent afterwards is dropped.
    """

    def __init__(self, call: grpc.aio.StreamStreamCall[Request, Response]) -> None:
        self._call = call
        self._queue: deque[Request] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._over = False

    def send(self, message: Request) -> None:
        """Write ``message`` after those before it; nothing is written after ``half_close``."""
        if not self._closing:
            self._queue.append(message)
            self._wake()

    def half_close(self) -> None:
        """Say, after what is queued, that nothing more will be written."""
        if not self._closing:
            self._closing = True
            self._wake()

    def abandon(self) -> None:
        """Write nothing more: the call is over."""
        self._over = True
        self._queue.clear()
        if self._task is not None:
            self._task.cancel()

    def _wake(self) -> None:
        if self._task is None and not self._over:
            self._task = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        try:
            while self._queue:
                await self._call.write(self._queue.popleft())
            if self._closing:
                await self._call.done_writing()
                self._over = True
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            self._over = True
        except asyncio.CancelledError:
            self._over = True
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
        finally:
            self._task = None
            if self._over:
                self._queue.clear()
