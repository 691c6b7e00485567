"""What a Tasks stream sees of deliveries, for the ledger."""

from __future__ import annotations

from collections.abc import Callable

from fleetwright.v1 import agent_service_pb2 as pb2

from controlplane.tasks.ledger.events import DeliveryEvent
from controlplane.tasks.ledger.observing import Observations
from controlplane.tasks.operations import Disposition, Finished


class StreamObserver:
    """Notes the observations of one stream; ``now`` gives the instant in microseconds.

    An instant is taken before a message is written and noted once it was: so it lies before whatever the
    agent makes of the message, and tells of none that never went out.
    """

    def __init__(self, observations: Observations, agent_id: str, epoch: int, now: Callable[[], int]) -> None:
        self._observations = observations
        self._agent_id = agent_id
        self._epoch = epoch
        self._now = now
        self._reported: dict[str, str] = {}  # tasks of results whose acknowledgement is to be written

    def written(self, response: pb2.TasksResponse, time: int) -> None:
        """Note a message that was written to the agent, at the instant before it was."""
        kind = response.WhichOneof("message")
        if kind == "assignment":
            assignment = response.assignment
            task_id, detail = assignment.task.partition("/")[2], f"attempt {assignment.number}"
            self._note(DeliveryEvent.SENT, task_id, assignment.attempt_id, time, detail)
        elif kind == "result_acknowledged":
            attempt_id = response.result_acknowledged.attempt_id
            reported = self._reported.pop(attempt_id, None)
            if reported is not None:
                self._note(DeliveryEvent.ACKNOWLEDGED, reported, attempt_id, time)

    def committed(self, attempt_id: str, finished: Finished, received: int) -> None:
        """Note a result that came at the instant ``received``, after its commit."""
        task_id = finished.task_id
        self._note(DeliveryEvent.RESULT_RECEIVED, task_id, attempt_id, received)
        if finished.disposition is Disposition.DUPLICATE:
            self._note(DeliveryEvent.DUPLICATE_SUPPRESSED, task_id, attempt_id, self._now())
        self._reported[attempt_id] = task_id

    def _note(self, event: DeliveryEvent, task_id: str, attempt_id: str, time: int, detail: str = "") -> None:
        self._observations.note(event, task_id, attempt_id, self._agent_id, self._epoch, time, detail)
