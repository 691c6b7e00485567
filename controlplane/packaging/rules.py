"""Where a pipeline may go, and what its stages' outcomes mean. Pure.

Invariants:

* A state changes only along ``TRANSITIONS``; of the final states only ERROR is ever left, by a retry.
* Stages run in their order, and none begins before the one before it has succeeded.
* A package passes only by a decision of policy: no outcome of another stage makes it PASSED or EXCEPTED.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType


class PipelineState(IntEnum):
    """Where a pipeline stands; the numbers are those of the contract."""

    CREATED = 1
    QUEUED = 2
    RUNNING = 3
    PASSED = 4
    EXCEPTED = 5
    REFUSED = 6
    ERROR = 7
    CANCELLED = 8

    @property
    def final(self) -> bool:
        """Whether nothing runs any more, and nothing will by itself."""
        return self >= PipelineState.PASSED


class Stage(IntEnum):
    """The stages, in their order; the numbers are those of the contract."""

    INTAKE = 1
    BUILD = 2
    SIGN = 3
    SBOM = 4
    SCAN = 5
    POLICY = 6
    STORE = 7

    @property
    def following(self) -> Stage | None:
        """The one after it; None for the last."""
        return Stage(self + 1) if self < Stage.STORE else None


class StageState(IntEnum):
    """Where a stage of a pipeline stands; the numbers are those of the contract."""

    PENDING = 1
    RUNNING = 2
    SUCCEEDED = 3
    FAILED = 4
    SKIPPED = 5


class Decision(IntEnum):
    """What policy says of a package; the numbers are those of the contract. 0: it was not judged yet."""

    UNJUDGED = 0
    PASS = 1
    FAIL = 2
    EXCEPTION = 3

    @property
    def releases(self) -> bool:
        """Whether agents may have the package."""
        return self in (Decision.PASS, Decision.EXCEPTION)


_S = PipelineState
TRANSITIONS: Mapping[PipelineState, frozenset[PipelineState]] = MappingProxyType(
    {
        _S.CREATED: frozenset({_S.QUEUED, _S.CANCELLED}),
        _S.QUEUED: frozenset({_S.RUNNING, _S.CANCELLED}),
        _S.RUNNING: frozenset({_S.PASSED, _S.EXCEPTED, _S.REFUSED, _S.ERROR, _S.CANCELLED}),
        _S.PASSED: frozenset(),
        _S.EXCEPTED: frozenset(),
        _S.REFUSED: frozenset(),
        _S.ERROR: frozenset({_S.QUEUED}),
        _S.CANCELLED: frozenset(),
    }
)
"""What each state may become. A pipeline whose worker died stays RUNNING: another one goes on with it."""


def may_become(state: PipelineState, to: PipelineState) -> bool:
    """Return whether a pipeline may go from one state to another."""
    return to in TRANSITIONS[state]


def end_of(decision: Decision) -> PipelineState:
    """Return how a pipeline ends whose stages have all been done. Raises ``ValueError`` where none judged."""
    if decision is Decision.UNJUDGED:
        raise ValueError("policy has not judged the package")
    return {
        Decision.PASS: PipelineState.PASSED,
        Decision.EXCEPTION: PipelineState.EXCEPTED,
        Decision.FAIL: PipelineState.REFUSED,
    }[decision]


def skipped_after(stage: Stage, decision: Decision) -> bool:
    """Return whether what follows ``stage`` is left out: bytes that policy refused are not released."""
    return stage is Stage.POLICY and not decision.releases


def first_to_run(states: Mapping[Stage, StageState]) -> Stage | None:
    """Return the stage to go on with, by what is known of each; None where all have succeeded.

    A stage that was RUNNING when its worker died is run again; a stage after one that did not
    succeed never counts as done.
    """
    for stage in Stage:
        if states.get(stage, StageState.PENDING) is not StageState.SUCCEEDED:
            return stage
    return None


class PieceRefused(ValueError):
    """A piece of an upload does not fit; ``committed`` is where the upload stands."""

    def __init__(self, message: str, committed: int) -> None:
        super().__init__(message)
        self.committed = committed


def after_piece(committed: int, size: int, offset: int, length: int) -> int:
    """Return how much of an upload of ``size`` bytes there is after a piece. Raises ``PieceRefused``.

    A piece begins exactly where the upload stands: bytes that come twice may differ, and which of
    them were meant could not be told.
    """
    if offset != committed:
        raise PieceRefused(f"offset: {offset} is not where the upload stands, at {committed}", committed)
    if committed + length > size:
        raise PieceRefused(
            f"data: ends at {committed + length}, behind the {size} bytes announced", committed
        )
    return committed + length
