"""The dispatcher of a Tasks stream: leases work as credits allow, and asks for attempts to be stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog
from fleetwright.v1 import agent_service_pb2 as pb2
from fleetwright.v1 import work_pb2

from controlplane import failpoints
from controlplane.sessions.outbox import Outbox
from controlplane.storage.writer import Writer
from controlplane.tasks.operations import Adopt, Adopted, Lease
from controlplane.tasks.records import Assigned
from controlplane.tasks.service import TasksService

LEASED_AT_ONCE = 16
"""Tasks in one lease: of the largest specs, 256 KiB each, 4 MiB."""

_log = structlog.get_logger(__name__)


class Dispatcher:
    """Says into ``outbox`` what one session's agent is to do.

    ``max_credits`` bounds what it may be handed at once; ``now`` gives the instant in
    microseconds.
    """

    def __init__(
        self,
        agent_id: str,
        epoch: int,
        writer: Writer,
        tasks: TasksService,
        max_credits: int,
        now: Callable[[], int],
    ) -> None:
        self._agent_id = agent_id
        self._epoch = epoch
        self._writer = writer
        self._tasks = tasks
        self._max_credits = max_credits
        self._now = now
        self._credits = 0
        self._woken = asyncio.Event()
        self._look = False  # a wake-up came that no lease has answered
        self._look_for_stops = False
        self._more = False  # the last lease found as much as it was allowed
        self._untaken: set[str] = set()
        self._stopping: set[str] = set()
        self._ended = False
        self._log = _log.bind()  # once for a stream: at the usual level its debug lines then cost nothing
        self.outbox = Outbox(self._woken.set)

    @property
    def leaves_work(self) -> bool:
        """Whether the agent should come back at once."""
        return bool(self._untaken) or self._look

    def wake(self, *, stopping: bool = False) -> None:
        """Look for work; with ``stopping``, for attempts to be stopped too."""
        self._look = True
        self._look_for_stops = self._look_for_stops or stopping
        self._woken.set()

    def end(self) -> None:
        """Lease nothing more; one that is under way is ended first."""
        self._ended = True
        self._woken.set()

    def add_credits(self, added: int) -> None:
        """Let so many more attempts be assigned, up to the most that there may be."""
        self._credits = min(self._credits + added, self._max_credits)
        self._woken.set()

    async def serve(
        self, journal: tuple[tuple[str, bool], ...], opened: Callable[[Sequence[str]], None]
    ) -> None:
        """Compare an agent's journal with what it was handed, lease in the same commit, then ``run``.

        ``opened`` is called after the commit, before anything that it gave rise to is said, with
        the attempts that are to be stopped.
        """
        limit = min(self._credits, LEASED_AT_ONCE)
        # What was committed until now is found; what comes while this is in the queue is looked for again.
        self._look = False
        adopted: Adopted = await self._writer.submit(
            Adopt(self._agent_id, self._epoch, journal, self._now(), limit)
        )
        if adopted.leased:
            failpoints.hit("leases.after_commit")
        opened(adopted.stop)
        for attempt_id in adopted.stop:
            self.stop(attempt_id)
        for assigned in (*adopted.resend, *adopted.leased):
            self._assign(assigned)
        self._more = len(adopted.resend) + len(adopted.leased) >= limit
        await self.run()

    def taken(self, attempt_id: str) -> None:
        """Note that the agent has an attempt in its journal."""
        self._untaken.discard(attempt_id)

    def stop(self, attempt_id: str) -> None:
        """Ask for an attempt to be stopped, once until ``forget``."""
        if attempt_id not in self._stopping:
            self._stopping.add(attempt_id)
            self.cancel(attempt_id)

    def cancel(self, attempt_id: str) -> None:
        """Ask for an attempt to be stopped and do not remember it: no result of it will be taken."""
        self.outbox.put(pb2.TasksResponse(cancel=pb2.AttemptCancel(attempt_id=attempt_id)))

    def forget(self, attempt_id: str) -> None:
        """Forget an attempt whose result was answered."""
        self._stopping.discard(attempt_id)

    async def run(self) -> None:
        """Lease until ``end``."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            await self._say_stops()
            # Asked after every wait: what an ended stream leases, nobody is told of.
            if self._ended:
                return
            looked, self._look = self._look, False
            if not (looked or self._more):
                continue
            if self._credits <= 0 or not self.outbox.takes_assignments:
                self._more = True
                continue
            limit = min(self._credits, LEASED_AT_ONCE)
            leased = await self._writer.submit(Lease(self._agent_id, self._epoch, limit, self._now()))
            if leased:
                failpoints.hit("leases.after_commit")
            for assigned in leased:
                self._assign(assigned)
            self._more = len(leased) == limit
            if self._more and self._credits > 0:
                self._woken.set()

    async def _say_stops(self) -> None:
        if self._look_for_stops and not self._ended:
            self._look_for_stops = False
            for attempt_id in await self._tasks.cancellations(self._agent_id):
                self.stop(attempt_id)

    def _assign(self, assigned: Assigned) -> None:
        self._credits -= 1
        self._untaken.add(assigned.attempt_id)
        self._log.debug(
            "attempt assigned", task=assigned.task_id, attempt=assigned.attempt_id, number=assigned.number
        )
        assignment = pb2.Assignment(
            attempt_id=assigned.attempt_id,
            task=f"tasks/{assigned.task_id}",
            number=assigned.number,
            spec=work_pb2.TaskSpec.FromString(assigned.spec),
            idempotent=assigned.idempotent,
        )
        assignment.run_limit.FromMicroseconds(assigned.run_limit)
        self.outbox.put(pb2.TasksResponse(assignment=assignment))
