"""DeliveryService of the contract: proto in, service, proto out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from fleetwright.v1 import agent_registry_service_pb2 as registry_pb2
from fleetwright.v1 import delivery_service_pb2 as pb2
from fleetwright.v1 import delivery_service_pb2_grpc as pb2_grpc
from fleetwright.v1 import task_service_pb2 as tasks_pb2

from controlplane import redaction
from controlplane.tasks.explaining.rules import Explanation
from controlplane.tasks.explaining.service import ExplainingService
from controlplane.tasks.ledger.events import Choice, EventRecord
from controlplane.tasks.ledger.service import LedgerService
from controlplane.transport.messages import timestamp

if TYPE_CHECKING:
    # A generic class only to the type checker.
    Context = grpc.aio.ServicerContext[Any, Any]


class DeliveryHandler(pb2_grpc.DeliveryServiceServicer):
    """Serves DeliveryService."""

    def __init__(self, ledger: LedgerService, explaining: ExplainingService) -> None:
        self._ledger = ledger
        self._explaining = explaining

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve on ``server``."""
        pb2_grpc.add_DeliveryServiceServicer_to_server(self, server)

    async def ListDeliveryEvents(
        self, request: pb2.ListDeliveryEventsRequest, context: Context
    ) -> pb2.ListDeliveryEventsResponse:
        """Read a page of events."""
        choice = Choice(
            task_id=_id(request.task),
            agent_id=_id(request.agent),
            start=request.start_time.ToMicroseconds() if request.HasField("start_time") else None,
            end=request.end_time.ToMicroseconds() if request.HasField("end_time") else None,
        )
        page = await self._ledger.list(choice, request.filter, request.page_size, request.page_token)
        return pb2.ListDeliveryEventsResponse(
            events=[event_message(event) for event in page.events],
            next_page_token=page.next_page_token,
            lost_observations=page.lost,
        )

    async def ExplainTask(self, request: pb2.ExplainTaskRequest, context: Context) -> pb2.ExplainTaskResponse:
        """Explain a task's state."""
        found = await self._explaining.task(_id(request.name))
        return pb2.ExplainTaskResponse(
            name=f"tasks/{found.task_id}",
            agent=f"agents/{found.agent_id}",
            state=tasks_pb2.TaskState.ValueType(int(found.state)),
            explanation=explanation_message(found.explanation),
        )

    async def ExplainAgent(
        self, request: pb2.ExplainAgentRequest, context: Context
    ) -> pb2.ExplainAgentResponse:
        """Explain an agent's presence and its work."""
        found = await self._explaining.agent(_id(request.name))
        message = pb2.ExplainAgentResponse(
            name=f"agents/{found.agent.agent_id}",
            presence=registry_pb2.Presence.ValueType(int(found.agent.presence)),
            explanation=explanation_message(found.explanation),
            oldest_create_time=timestamp(found.oldest),
        )
        for state, count in found.open_counts.items():
            message.open_counts.add(state=tasks_pb2.TaskState.ValueType(int(state)), count=count)
        return message


def event_message(event: EventRecord) -> pb2.DeliveryEvent:
    """Return the contract's form of an event."""
    return pb2.DeliveryEvent(
        event_type=pb2.DeliveryEventType.ValueType(event.event),
        time=timestamp(event.time),
        task=f"tasks/{event.task_id}" if event.task_id else "",
        agent=f"agents/{event.agent_id}" if event.agent_id else "",
        attempt_id=event.attempt_id or "",
        session_epoch=event.session_epoch or 0,
        detail=redaction.text(event.detail),
    )


def explanation_message(explanation: Explanation) -> pb2.Explanation:
    """Return the contract's form of an explanation; what agents said in it is freed of secrets."""
    message = pb2.Explanation(since_time=timestamp(explanation.since))
    for sentence in explanation.because:
        code = pb2.ExplanationCode.ValueType(int(sentence.code))
        message.because.add(code=code, text=redaction.text(sentence.text))
    for step in explanation.next_steps:
        code = pb2.ExplanationCode.ValueType(int(step.code))
        message.next_steps.add(code=code, text=step.text, latest_time=timestamp(step.latest))
    for remedy in explanation.remedies:
        message.remedies.add(text=remedy.text, command=remedy.command)
    return message


def _id(name: str) -> str:
    return name.partition("/")[2]
