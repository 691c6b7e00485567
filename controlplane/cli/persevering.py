"""Transfers that are cut off and gone on with: how often, and after which wait."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import grpc
from fleetwright.errors import Failure

TRIES: Final = 8
"""Cuts in a row after none of which anything more came through; with their waits about a minute."""

FIRST_WAIT: Final = timedelta(seconds=1)
LONGEST_WAIT: Final = timedelta(seconds=15)

_PASSING = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
    }
)
_TORN = frozenset({grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED})
"""What gRPC says of a stream that was torn off; a server's own word has a reason."""


class Perseverance:
    """Decides whether a transfer that was cut off is gone on with, and waits until then.

    ``note`` is told of every cut. Use one for a whole transfer, and tell it of what came through.
    """

    def __init__(self, note: Callable[[str], None], sleep: Callable[[float], None] = time.sleep) -> None:
        self._note = note
        self._sleep = sleep
        self._cuts = 0
        self._furthest = 0

    def reached(self, position: int) -> None:
        """Note how far the transfer is: one that gets on has all its tries again."""
        if position > self._furthest:
            self._furthest, self._cuts = position, 0

    def after(self, error: grpc.RpcError) -> None:
        """Wait until the next try; raises ``error`` where none would help, or too many did not."""
        failure = Failure.of(error)
        if not passing(failure):
            raise error
        self._cuts += 1
        if self._cuts >= TRIES:
            raise error
        wait = self._wait(failure.retry_after)
        why = failure.message if failure.reason else "the server went away, or cannot be reached"
        self._note(f"cut off ({why}); going on in {wait.total_seconds():.1f} s")
        self._sleep(wait.total_seconds())

    def _wait(self, asked: timedelta | None) -> timedelta:
        longest = min(LONGEST_WAIT, FIRST_WAIT * (1 << (self._cuts - 1)))
        # At least half of it: a server that restarts is not back at once.
        spread = longest * (0.5 + random.random() / 2)  # noqa: S311 - spreads load, guards nothing
        return max(spread, asked or timedelta())


def passing(failure: Failure) -> bool:
    """Return whether a call may go well later as it is."""
    return failure.code in _PASSING or (failure.code in _TORN and not failure.answered)
