"""The kinds of work that callers give out: what each asks of an agent, and how it may end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum

from fleetwright.v1 import agent_service_pb2, task_service_pb2, work_pb2

BATCH_SIZE = 3
"""Agents of one batch of the mixed load."""
_ATTEMPTS = 3
_CANCELLED_AFTER = timedelta(milliseconds=200)
"""How long a task that is to be cancelled waits before its effect, so that it is most often under way."""
_OUTPUT_LINES = 400
_INTERPRETER = "sh"


class Kind(Enum):
    """What is asked for, and with which promise."""

    PLAIN = "one effect"
    RETRIED = "its first attempt has its effect and fails; it is tried again"
    CANCELLED = "cancelled at once when it was acknowledged: one effect, or none"
    OUTPUT = "one effect, and output that is kept whole"
    BATCH = "one task and one effect for each agent"
    EXPIRING = "for an agent that does not come in time: no effect"


# One of each kind besides the plain ones, in so many requests.
_EVERY = 10
_MIXED = {1: Kind.RETRIED, 3: Kind.CANCELLED, 5: Kind.BATCH, 8: Kind.OUTPUT}


@dataclass(frozen=True, slots=True)
class Order:
    """What one request asks for."""

    request: str
    kind: Kind
    agents: tuple[str, ...]
    """One agent; several of a batch."""
    queue_time: timedelta | None = None


def mixed(number: int) -> Kind:
    """Return the kind of the ``number``-th request of a mixed load."""
    return _MIXED.get(number % _EVERY, Kind.PLAIN)


def request_of(order: Order) -> task_service_pb2.CreateTaskRequest | task_service_pb2.CreateTaskBatchRequest:
    """Return the call that gives the order."""
    spec, options = _spec(order), task_service_pb2.TaskOptions()
    if order.kind is Kind.RETRIED:
        options.max_attempts = _ATTEMPTS
    if order.queue_time is not None:
        options.queue_time.FromTimedelta(order.queue_time)
    if order.kind is Kind.BATCH:
        selector = f"agent_id = ({' OR '.join(order.agents)})"
        return task_service_pb2.CreateTaskBatchRequest(
            selector=selector, spec=spec, options=options, request_id=order.request
        )
    return task_service_pb2.CreateTaskRequest(
        agent=f"agents/{order.agents[0]}", spec=spec, options=options, request_id=order.request
    )


def _spec(order: Order) -> work_pb2.TaskSpec:
    if order.kind is Kind.OUTPUT:
        script = work_pb2.ScriptSpec(interpreter=_INTERPRETER, body=order.request)
        return work_pb2.TaskSpec(script=script)
    echo = work_pb2.EchoSpec(payload=f"{order.kind.name} {order.request}".encode())
    if order.kind is Kind.CANCELLED:
        echo.delay.FromTimedelta(_CANCELLED_AFTER)
    return work_pb2.TaskSpec(echo=echo)


def fails(assignment: agent_service_pb2.Assignment) -> bool:
    """Return whether a host says that this attempt failed, after it has had its effect."""
    retried = assignment.spec.echo.payload.startswith(Kind.RETRIED.name.encode())
    return retried and assignment.number == 1


def output_of(spec: work_pb2.TaskSpec) -> bytes:
    """Return what a host writes to standard output before the work; nothing but for a script."""
    if spec.WhichOneof("kind") != "script":
        return b""
    return "".join(f"{number} {spec.script.body}\n" for number in range(_OUTPUT_LINES)).encode()


def ends(kind: Kind) -> set[task_service_pb2.TaskState.ValueType]:
    """Return the states in which work may end whose agents' processes were not ended."""
    if kind is Kind.EXPIRING:
        return {task_service_pb2.TASK_STATE_EXPIRED}
    if kind is Kind.CANCELLED:
        return {task_service_pb2.TASK_STATE_SUCCEEDED, task_service_pb2.TASK_STATE_CANCELLED}
    return {task_service_pb2.TASK_STATE_SUCCEEDED}
