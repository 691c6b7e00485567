"""Following a watch over lost connections, by its resume tokens."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Iterable
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
    token, attempt, begun = resume_token, 0, False
    while True:
        call = start(token)
        try:
            for change in call:
                token, attempt, begun = change.resume_token or token, 0, True
                yield change
            failure = Failure(grpc.StatusCode.UNAVAILABLE, message="the server ended the watch")
        except grpc.RpcError as error:
            failure = Failure.of(error)
            if not begun or failure.code not in _LOST:
                raise
        finally:
            _cancel(call)
        pause = _pause(attempt, failure.retry_after)
        attempt += 1
        lost(failure, pause)
        wait(pause.total_seconds())


def _pause(attempt: int, asked: timedelta | None) -> timedelta:
    """Return a random part of a wait that doubles (full jitter), and no less than the server asks for."""
    longest = min(LONGEST_WAIT, FIRST_WAIT * (1 << min(attempt, 10)))
    return max(longest * random.random(), asked or timedelta())  # noqa: S311 - spreads load, guards nothing


def _cancel(call: Any) -> None:
    # What a caller of the generator leaves open would hold its stream, on both sides, until the process ends.
    if hasattr(call, "cancel"):
        call.cancel()
