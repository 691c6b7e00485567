"""AgentRegistryService of the contract: proto in, service, proto out."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import grpc
from fleetwright.v1 import agent_registry_service_pb2 as pb2
from fleetwright.v1 import agent_registry_service_pb2_grpc as pb2_grpc

from controlplane.agents.records import AgentChange, AgentRecord
from controlplane.agents.rules import Editable
from controlplane.agents.service import AgentsService
from controlplane.errors import invalid
from controlplane.transport.context import current_caller
from controlplane.transport.messages import duration, host_facts, timestamp

if TYPE_CHECKING:
    # A generic class only to the type checker.
    Context = grpc.aio.ServicerContext[Any, Any]

_NAME = re.compile(r"agents/([a-z0-9-]{1,63})")


class AgentRegistryHandler(pb2_grpc.AgentRegistryServiceServicer):
    """Serves AgentRegistryService."""

    def __init__(self, agents: AgentsService) -> None:
        self._agents = agents

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serve on ``server``."""
        pb2_grpc.add_AgentRegistryServiceServicer_to_server(self, server)

    async def GetAgent(self, request: pb2.GetAgentRequest, context: Context) -> pb2.GetAgentResponse:
        """Read one agent."""
        agent = await self._agents.get(_agent_id(request.name, "name"))
        return pb2.GetAgentResponse(agent=agent_message(agent))

    async def ListAgents(self, request: pb2.ListAgentsRequest, context: Context) -> pb2.ListAgentsResponse:
        """Read a page of agents."""
        page = await self._agents.list(
            page_size=request.page_size, page_token=request.page_token, filter_text=request.filter
        )
        return pb2.ListAgentsResponse(
            agents=[agent_message(agent) for agent in page.agents],
            next_page_token=page.next_page_token,
            total_size=page.total_size,
        )

    async def UpdateAgent(self, request: pb2.UpdateAgentRequest, context: Context) -> pb2.UpdateAgentResponse:
        """Change labels, groups and notes, and take a suspicion away."""
        agent = await self._agents.update(
            _agent_id(request.agent.name, "agent.name"),
            paths=list(request.update_mask.paths),
            sent=Editable(
                labels=dict(request.agent.labels),
                notes=request.agent.notes,
                suspected_clone=request.agent.suspected_clone,
                groups=tuple(request.agent.groups),
            ),
            etag=request.agent.etag,
            caller=current_caller(),
        )
        return pb2.UpdateAgentResponse(agent=agent_message(agent))

    async def DeleteAgent(self, request: pb2.DeleteAgentRequest, context: Context) -> pb2.DeleteAgentResponse:
        """Delete an agent and what hangs on it."""
        cancelled = await self._agents.delete(
            _agent_id(request.name, "name"), etag=request.etag, caller=current_caller()
        )
        return pb2.DeleteAgentResponse(cancelled_tasks=cancelled)

    async def WatchAgents(
        self, request: pb2.WatchAgentsRequest, context: Context
    ) -> AsyncIterator[pb2.WatchAgentsResponse]:
        """Send what matches, then what changes, until the caller leaves."""
        changes = self._agents.watch(filter_text=request.filter, resume_token=request.resume_token)
        async with aclosing(changes):
            async for change in changes:
                yield _change_message(change)


def agent_message(agent: AgentRecord) -> pb2.Agent:
    """Return the contract's form of an agent."""
    return pb2.Agent(
        name=f"agents/{agent.agent_id}",
        agent_id=agent.agent_id,
        labels=agent.labels,
        notes=agent.notes,
        presence=pb2.Presence.ValueType(int(agent.presence)),
        presence_time=timestamp(agent.presence_time),
        presence_reason=pb2.PresenceReason.ValueType(int(agent.presence_reason)),
        presence_detail=agent.presence_detail,
        last_seen_time=timestamp(agent.last_seen_time),
        host=host_facts(agent.host),
        agent_version=agent.agent_version,
        task_kinds=agent.task_kinds,
        inventory_digest=agent.inventory_digest,
        clock_offset=duration(agent.clock_offset),
        session_epoch=agent.session_epoch,
        suspected_clone=agent.suspected_clone,
        certificate_expire_time=timestamp(agent.certificate_expire_time),
        enroll_time=timestamp(agent.enroll_time),
        update_time=timestamp(agent.update_time),
        etag=agent.etag,
        groups=agent.groups,
    )


def _change_message(change: AgentChange) -> pb2.WatchAgentsResponse:
    message = pb2.WatchAgentsResponse(
        change_type=pb2.ChangeType.ValueType(change.change.value), resume_token=change.resume_token
    )
    if change.agent is not None:
        message.agent.CopyFrom(agent_message(change.agent))
    elif change.agent_id:
        message.agent.name = f"agents/{change.agent_id}"
        message.agent.agent_id = change.agent_id
    return message


def _agent_id(name: str, field: str) -> str:
    found = _NAME.fullmatch(name)
    if found is None:
        raise invalid(field, f"{name[:80]!r} is not of the form agents/<agent id>")
    return found[1]
