"""The admission gate in front of new sessions: refusals with a slot, and its metrics."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic

from controlplane.errors import Unavailable
from controlplane.observability.metrics import Metrics
from controlplane.sessions.rules.admission import Gate, Verdict
from controlplane.sessions.rules.strain import Strain


class Admissions:
    """Lets Hellos pass the gate. ``target`` is how long one may take before the gate narrows."""

    def __init__(self, target: timedelta, metrics: Metrics) -> None:
        self._gate = Gate(target.total_seconds(), monotonic())
        self._verdicts = {verdict: metrics.admissions.labels(verdict.value) for verdict in Verdict}
        metrics.admission_backlog.set_function(lambda: self._gate.backlog)
        metrics.admission_gate.set_function(lambda: self._gate.width)
        metrics.admission_rate.set_function(lambda: self._gate.rate)

    @contextmanager
    def passing(self, agent_id: str, *, live: bool) -> Iterator[None]:
        """Hold a place in the gate for the length of a block; ``live`` where the agent has a session here.

        Raises ``Unavailable`` with the time until the agent's slot.
        """
        began = monotonic()
        answer = self._gate.ask(agent_id, began, live=live, jitter=random.random())  # noqa: S311 # no secret
        self._verdicts[answer.verdict].inc()
        if not answer.admitted:
            raise Unavailable(
                "UNAVAILABLE",
                f"this server takes in sessions as fast as it can; the slot of {agent_id} is in "
                f"{answer.wait:.1f} s: keep the connection, and say Hello again then",
                retry_after=timedelta(seconds=answer.wait),
            )
        try:
            yield
        finally:
            now = monotonic()
            self._gate.done(answer, now - began, now)

    def size(self, strain: Strain) -> None:
        """Size the gate by what the process measured of itself since the last time."""
        self._gate.size(strain, monotonic())
