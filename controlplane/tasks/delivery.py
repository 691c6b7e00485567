"""Delivery of tasks: who applies which operation of agents' streams.

Each applier reads a set, decides by the rules, and writes a set.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from controlplane.agents.service import AgentsService
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.storage.writer import Writer
from controlplane.tasks import rules
from controlplane.tasks.following import Followers
from controlplane.tasks.leases import Leases
from controlplane.tasks.operations import Accept, Adopt, Adopted, AppendOutput, Finish, Lease, Progress
from controlplane.tasks.results import Results
from controlplane.tasks.rules import AttemptState
from controlplane.tasks.settling import Settling
from controlplane.tasks.store import delivery as store

_Apply = Callable[[UnitOfWork, Sequence[Any]], Awaitable[Sequence[Any]]]


class Delivery:
    """The appliers of the tasks room. ``changed`` is called after each commit that changed a task.

    ``agents`` tells which sessions have a successor in another process; None where there is no other.
    ``following`` are the rooms that are told what agents make of tasks of a kind; they follow
    ``TasksService.following`` too, for what others make of them.
    """

    def __init__(
        self, lease_time: timedelta, changed: Callable[[], None], agents: AgentsService | None = None
    ) -> None:
        self._agents = agents
        self.following = Followers()
        self.settling = Settling(changed, self.following)
        self._leases = Leases(lease_time, self.settling)
        self._results = Results(self.settling, self.following)

    def register(self, writer: Writer) -> None:
        """Say to the writer who applies what."""
        writer.register(Adopt, self._fenced(self._leases.adopt, Adopted((), ())))
        writer.register(Lease, self._fenced(self._leases.lease, ()))
        writer.register(Accept, self._leases.accept)
        writer.register(Progress, self._results.progress)
        writer.register(AppendOutput, self._results.append_output)
        writer.register(Finish, self._results.finish)

    def _fenced(self, apply: _Apply, nothing: object) -> _Apply:
        """Return the applier that does ``nothing`` for sessions that have a successor.

        Their process may not have heard of it yet: work is handed out on the newest session alone. One
        that a session opened at the same moment does not see is sent again by that one's Adopt.
        """

        agents = self._agents
        if agents is None:
            return apply

        async def fenced(work: UnitOfWork, operations: Sequence[Any]) -> Sequence[Any]:
            newest = await agents.session_epochs(work.connection, {one.agent_id for one in operations})
            live = [one.epoch >= newest.get(one.agent_id, 0) for one in operations]
            current = [one for one, lives in zip(operations, live, strict=True) if lives]
            outcomes = iter(await apply(work, current) if current else ())
            return [next(outcomes) if lives else nothing for lives in live]

        return fenced

    async def lose_journals(self, work: UnitOfWork, times: Mapping[str, int]) -> int:
        """Give up what agents had in hand when they lost their journals; returns how many attempts.

        That may be one whose lease has lapsed: it was journalled and run if the word of
        that was lost. Only a list of the same journal without it would have told otherwise.
        ``times`` are instants by agent id. Takes part in the commit that stores the new journals.
        """
        lost = await store.unreported_attempts(work.connection, times)
        # What befalls a task befalls it once, by the last of its attempts.
        last = {attempt.task_id: attempt.attempt_id for attempt in lost}
        reason = "the agent came back without its journal; whether the work had an effect is not known"
        await self.settling.settle(
            work,
            [
                (
                    attempt,
                    rules.event_of_interruption(attempt.task)
                    if attempt.attempt_id == last[attempt.task_id]
                    else None,
                    reason,
                    times[attempt.agent_id],
                )
                for attempt in lost
            ],
            AttemptState.ABANDONED,
        )
        return len(lost)
