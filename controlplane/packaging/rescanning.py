"""Judging again: everything at every import and under every new policy, and what stands on time in time.

What turned bad is withdrawn, and reported with the agents that have it; what turned good is released. A
package that is due stays due until it was looked at, so a crash anywhere leaves nothing undone: the next run
goes on. Runs at the same time, here or in other processes, do no harm and some work twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from controlplane.clock import Clock, to_micros
from controlplane.errors import ServiceError
from controlplane.packaging.judging import Concluded, Judging, JudgingFailed
from controlplane.packaging.rules import Decision
from controlplane.packaging.store import packages
from controlplane.storage.database import Database

STEP = 200
"""Packages that are asked for at once."""
MOST_TOLD = 20
"""Agents that a line of the server's log names."""

_log = structlog.get_logger(__name__)


class Releases(Protocol):
    """What makes packages be had by agents, and not be had. Both are idempotent."""

    async def publish(self, package: str, /) -> None:
        """Release a package, by its SHA-256, with its attestations as they stand."""

    async def withdraw(self, package: str, reason: str, /) -> None:
        """Take a package back; one that is not released is left alone."""


class Holder(Protocol):
    """An agent that has a package."""

    @property
    def agent_id(self) -> str:
        """Its id."""


class Having(Protocol):
    """Who knows which agents have a package."""

    async def agents_having(self, package: str, /) -> Sequence[Holder]:
        """Return the agents on which a package is installed, by its SHA-256."""


@dataclass(frozen=True, slots=True)
class Turned:
    """A package whose decision is another one now, and the agents that have it."""

    package: str
    package_name: str
    version: str
    before: Decision
    after: Decision
    reasons: Sequence[str]
    agents: Sequence[str]

    @property
    def bad(self) -> bool:
        """Whether agents could have it before, and cannot any more."""
        return self.before.releases and not self.after.releases


@dataclass(frozen=True, slots=True)
class Problem:
    """A package that could not be judged again, or whose release could not be changed."""

    package: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Rescanned:
    """What a run came to."""

    looked_at: int
    turned: Sequence[Turned] = ()
    problems: Sequence[Problem] = ()


@dataclass(frozen=True, slots=True)
class Looked:
    """What one package came to; ``concluded`` is None where there is no such package."""

    concluded: Concluded | None
    turned: Turned | None = None
    problem: Problem | None = None


class Rescanning:
    """Use cases around judging again."""

    def __init__(
        self, database: Database, clock: Clock, judging: Judging, releases: Releases, having: Having
    ) -> None:
        self._database = database
        self._clock = clock
        self._judging = judging
        self._releases = releases
        self._having = having

    async def run(self) -> Rescanned:
        """Judge again whatever is due; one that fails does not hold the others up."""
        known, now = await self._judging.known(), to_micros(self._clock.now())
        looked: list[Looked] = []
        after = ""
        while page := await self._due(known, now, after):
            looked += [await self.one(sha256) for sha256 in page]
            after = page[-1]
        return Rescanned(
            len(looked),
            [one.turned for one in looked if one.turned],
            [one.problem for one in looked if one.problem],
        )

    async def _due(self, known: str, now: int, after: str) -> list[str]:
        return await self._database.read(
            lambda connection: packages.due(connection, known, self._judging.policy, now, after, STEP)
        )

    async def one(self, sha256: str) -> Looked:
        """Judge one package again, now, and have its release follow. Raises nothing of the package's own."""
        try:
            concluded = await self._judging.again(sha256)
        except JudgingFailed as failed:
            return Looked(None, problem=_told(Problem(sha256, failed.code, failed.message)))
        if concluded is None:
            return Looked(None)
        problem = concluded.problem
        said = Problem(sha256, problem.code, problem.message) if problem else None
        failed_release = await self._release(concluded)
        turned = await self._turned(concluded) if concluded.package.decision != concluded.before else None
        return Looked(concluded, turned, _told(failed_release or said))

    async def _release(self, concluded: Concluded) -> Problem | None:
        package = concluded.package
        try:
            if package.decision.releases and concluded.fresh:
                await self._releases.publish(package.sha256)
            elif concluded.before.releases and not package.decision.releases:
                await self._releases.withdraw(package.sha256, _why(package.decision_reasons))
        except ServiceError as error:
            # What is decided is committed: Releases.reconcile brings what is published after it.
            return Problem(package.sha256, error.reason, error.message)
        return None

    async def _turned(self, concluded: Concluded) -> Turned:
        package = concluded.package
        agents = [one.agent_id for one in await self._having.agents_having(package.sha256)]
        turned = Turned(
            package.sha256,
            package.package_name,
            package.version,
            concluded.before,
            package.decision,
            tuple(package.decision_reasons),
            tuple(agents),
        )
        say = _log.warning if turned.bad else _log.info
        say(
            "package turned bad" if turned.bad else "package's decision changed",
            package=turned.package,
            name=turned.package_name,
            version=turned.version,
            before=turned.before.name,
            after=turned.after.name,
            reasons=list(turned.reasons),
            agent_count=len(agents),
            agents=agents[:MOST_TOLD],
        )
        return turned


def _told(problem: Problem | None) -> Problem | None:
    if problem is not None:
        _log.error(
            "package was not judged again", package=problem.package, code=problem.code, error=problem.message
        )
    return problem


def _why(reasons: Sequence[str]) -> str:
    return "; ".join(reasons) or "policy does not let agents have it"
