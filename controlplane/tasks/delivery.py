"""Delivery of tasks: who applies which operation of agents' streams.

Each applier reads a set, decides by the rules, and writes a set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta

from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.storage.writer import Writer
from controlplane.tasks import rules
from controlplane.tasks.leases import Leases
from controlplane.tasks.operations import Accept, Adopt, AppendOutput, Finish, Lease, Progress
from controlplane.tasks.results import Results
from controlplane.tasks.rules import AttemptState
from controlplane.tasks.settling import Settling
from controlplane.tasks.store import delivery as store


class Delivery:
    """The appliers of the tasks room. ``changed`` is called after each commit that changed a task."""

    def __init__(self, lease_time: timedelta, changed: Callable[[], None]) -> None:
        self.settling = Settling(changed)
        self._leases = Leases(lease_time, self.settling)
        self._results = Results(self.settling)

    def register(self, writer: Writer) -> None:
        """Say to the writer who applies what."""
        writer.register(Adopt, self._leases.adopt)
        writer.register(Lease, self._leases.lease)
        writer.register(Accept, self._leases.accept)
        writer.register(Progress, self._results.progress)
        writer.register(AppendOutput, self._results.append_output)
        writer.register(Finish, self._results.finish)

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
