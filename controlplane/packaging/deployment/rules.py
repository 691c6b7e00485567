"""Where the installation of a package stands on an agent. Pure.

Invariants:

* What an agent said of how its installation ended stands above what the server made of its silence, also
  where it comes late: the package is there or is not there, whatever became of the task.
* INSTALLED is taken back by no result of another attempt of the same task.
* INSTALLED needs both the outcome and the detail of a result, where it has one: an agent that contradicts
  itself has not installed.
* A deployment whose task is final is final, and one whose task is open is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum, IntEnum


class DeploymentStatus(IntEnum):
    """Where an installation stands; the numbers are those of the contract."""

    PENDING = 1
    DOWNLOADING = 2
    VERIFYING = 3
    INSTALLING = 4
    INSTALLED = 5
    FAILED = 6
    ROLLED_BACK = 7

    @property
    def final(self) -> bool:
        """Whether the installation has ended."""
        return self >= DeploymentStatus.INSTALLED


class Work(Enum):
    """How the task of a deployment stands."""

    WAITS = "no attempt of it is begun"
    RUNS = "its agent is at it"
    ENDED = "it is final"


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a deployment stands since the instant ``time``, and why."""

    status: DeploymentStatus
    time: int
    reason: str = ""
    reason_code: str = ""


@dataclass(frozen=True, slots=True)
class TaskStanding:
    """Where the task of a deployment stands; ``state`` is the name of its state."""

    work: Work
    state: str
    time: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """What an agent said of an installation.

    ``outcome`` is the name of the outcome of its result, empty as long as it is at it; ``status`` is the
    contract's, 0 where it named none.
    """

    status: int
    time: int
    outcome: str = ""
    reason: str = ""
    reason_code: str = ""


SUCCEEDED = "SUCCEEDED"
"""The name of the outcome, and of the state of a task, that went well."""

_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_MAX_REASON = 2_048


def after(standing: Standing, task: TaskStanding, said: Iterable[Said]) -> Standing:
    """Return where a deployment stands when its agent has ``said`` something and its task stands so now."""
    results = []
    for one in said:
        if one.outcome:
            results.append(ended(one))
        else:
            standing = _gone_on(standing, one)
    if task.work is Work.ENDED:
        return _ended(standing, task, results)
    if task.work is Work.WAITS:
        return _waiting(standing, task, results)
    # It is in the hands of an attempt that goes on: what another one came to is no news.
    return Standing(DeploymentStatus.PENDING, task.time) if standing.status.final else standing


def ended(said: Said) -> Standing:
    """Return what a result says by itself."""
    reason = clean(said.reason)
    well = said.outcome == SUCCEEDED
    if said.status == DeploymentStatus.INSTALLED or (well and not said.status):
        if well:
            return Standing(DeploymentStatus.INSTALLED, said.time, reason)
        return Standing(DeploymentStatus.FAILED, said.time, reason, _code(said, said.outcome))
    back = said.status == DeploymentStatus.ROLLED_BACK
    status = DeploymentStatus.ROLLED_BACK if back else DeploymentStatus.FAILED
    return Standing(status, said.time, reason, _code(said, "CONTRADICTION" if well else said.outcome))


def clean(reason: str) -> str:
    """Return an agent's words in a form that any database takes."""
    return reason.replace("\0", "\N{REPLACEMENT CHARACTER}")[:_MAX_REASON]


def _code(said: Said, otherwise: str) -> str:
    if not said.reason_code:
        return otherwise
    return said.reason_code if _CODE.fullmatch(said.reason_code) else "OTHER"


def _gone_on(standing: Standing, said: Said) -> Standing:
    try:
        status = DeploymentStatus(said.status)
    except ValueError:
        return standing
    # How it ended is told by its result, which is durable at the agent.
    if status.final or status is standing.status or standing.status is DeploymentStatus.INSTALLED:
        return standing
    return Standing(status, said.time)


def _ended(standing: Standing, task: TaskStanding, results: list[Standing]) -> Standing:
    installed = [one for one in (standing, *results) if one.status is DeploymentStatus.INSTALLED]
    if installed:
        return installed[0]
    if results:
        return results[-1]
    if standing.status.final:
        return standing
    return Standing(DeploymentStatus.FAILED, task.time, task.reason, _code_of(task))


def _code_of(task: TaskStanding) -> str:
    # A task that is FAILED without a result was given up by the server.
    return "NO_RESULT" if task.state in ("FAILED", "DEAD", SUCCEEDED) else task.state


def _waiting(standing: Standing, task: TaskStanding, results: list[Standing]) -> Standing:
    last = results[-1] if results else standing
    if last.status is DeploymentStatus.PENDING:
        return last
    # Why it has to wait again is what people want to know of it.
    return replace(last, status=DeploymentStatus.PENDING, time=task.time, reason=last.reason or task.reason)
