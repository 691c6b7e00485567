"""Following a watch over lost connections, by its resume tokens; synchronously, and with asyncio."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Generator, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Protocol, TypeVar

import grpc

from fleetwright.errors import Failure

FIRST_WAIT: Final = timedelta(seconds=1)
LONGEST_WAIT: Final = timedelta(seconds=30)

_LOST = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED})


class Change(Protocol):
    """A message of a watch: from its ``resume_token`` a later watch goes on after it."""

    @property
    def resume_token(self) -> str:
        """Empty where the message is no place to go on from."""


ChangeT = TypeVar("ChangeT", bound=Change)


def follow(
    start: Callable[[str], Iterable[ChangeT]],
    *,
    resume_token: str = "",
    lost: Callable[[Failure, timedelta], None] = lambda failure, wait: None,
    wait: Callable[[float], None] = time.sleep,
) -> Generator[ChangeT, None, None]:
    """Yield every change of a watch, which is begun again wherever its connection is lost.

    ``start`` opens the watch at a resume token ("" for the beginning), for example
    ``lambda token: agents.WatchAgents(WatchAgentsRequest(resume_token=token))``. Before it is opened again
    ``lost`` is told why, and how long it waits: from one second up to thirty, with jitter, or as long as the
    server asks. No change is lost or sent twice by that.

    Raises ``grpc.RpcError`` where the first opening fails, because then the address or the identity may be
    wrong, and for every refusal that a repetition would not mend.
    """
    progress = _Progress(resume_token)
    while True:
        call = start(progress.token)
        try:
            for change in call:
                progress.note(change)
                yield change
            failure = _ENDED
        except grpc.RpcError as error:
            failure = progress.lost_by(error)
        finally:
            _cancel(call)
        pause = progress.pause(failure)
        lost(failure, pause)
        wait(pause.total_seconds())


async def follow_aio(
    start: Callable[[str], AsyncIterable[ChangeT]],
    *,
    resume_token: str = "",
    lost: Callable[[Failure, timedelta], None] = lambda failure, wait: None,
    wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncGenerator[ChangeT, None]:
    """Yield every change of a watch as ``follow`` does, with a stub on a channel of ``connect_aio``.

    Close the generator (``contextlib.aclosing``) where you leave it before its end.
    """
    progress = _Progress(resume_token)
    while True:
        call = start(progress.token)
        try:
            async for change in call:
                progress.note(change)
                yield change
            failure = _ENDED
        except grpc.RpcError as error:
            failure = progress.lost_by(error)
        finally:
            _cancel(call)
        pause = progress.pause(failure)
        lost(failure, pause)
        await wait(pause.total_seconds())


_ENDED: Final = Failure(grpc.StatusCode.UNAVAILABLE, message="the server ended the watch")


@dataclass(slots=True)
class _Progress:
    """How far a watch has come, over all its connections."""

    token: str
    begun: bool = False
    attempt: int = 0

    def note(self, change: Change) -> None:
        """Go on after ``change`` from now on."""
        self.token, self.attempt, self.begun = change.resume_token or self.token, 0, True

    def lost_by(self, error: grpc.RpcError) -> Failure:
        """Return why the connection was lost; raises ``error`` where a repetition would not mend it."""
        failure = Failure.of(error)
        # What gRPC says of a stream that was torn off; a server's own word has a reason.
        torn = failure.code is grpc.StatusCode.UNKNOWN and not failure.answered
        if not self.begun or not (torn or failure.code in _LOST):
            raise error
        return failure

    def pause(self, failure: Failure) -> timedelta:
        """Return how long to wait before the next attempt."""
        pause = _pause(self.attempt, failure.retry_after)
        self.attempt += 1
        return pause


def _pause(attempt: int, asked: timedelta | None) -> timedelta:
    """Return a random part of a wait that doubles (full jitter), and no less than the server asks for."""
    longest = min(LONGEST_WAIT, FIRST_WAIT * (1 << min(attempt, 10)))
    return max(longest * random.random(), asked or timedelta())  # noqa: S311 - spreads load, guards nothing


def _cancel(call: Any) -> None:
    # What a caller of the generator leaves open would hold its stream, on both sides, until the process ends.
    if hasattr(call, "cancel"):
        call.cancel()
