"""What an agent's earlier process left, and the real server's answer to it."""

from __future__ import annotations

import asyncio

from fleetwright.v1 import agent_service_pb2, task_service_pb2

from agent_sim.protocol.journal import MemoryJournal
from agent_sim.protocol.rules import AttemptState
from tests.integration.server.test_server_refuses_agents import Notes, OddHost, engine, final
from tests.support.admin import Admin
from tests.support.agents import RawAgent
from tests.support.in_process import LocalSite


async def test_an_attempt_that_was_cancelled_while_its_agent_was_down_is_never_begun(
    site: LocalSite, admin: Admin, agent: RawAgent
) -> None:
    tasks = [await admin.create("node-1", payload) for payload in (b"wanted", b"cancelled")]
    journal = MemoryJournal(agent.journal_id)
    session = await agent.come()
    stream = await session.tasks(allowed=2)
    for _ in tasks:
        assignment = await stream.until("assignment")
        await journal.add(assignment)
        await stream.send(accepted=agent_service_pb2.AttemptAccepted(attempt_id=assignment.attempt_id))
    async with asyncio.timeout(10):
        while (await admin.task(tasks[1].name)).state != task_service_pb2.TASK_STATE_RUNNING:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    # The agent's process ends here, with both in its journal and neither begun.
    await agent.close()
    await admin.tasks.CancelTask(task_service_pb2.CancelTaskRequest(name=tasks[1].name))

    await journal.store_nonce(agent.nonce)
    host = OddHost()
    host.together = asyncio.Barrier(1)
    async with engine(agent, host, Notes(), journal):
        ended = [await final(admin, task.name) for task in tasks]
    assert [task.state for task in ended] == [
        task_service_pb2.TASK_STATE_SUCCEEDED,
        task_service_pb2.TASK_STATE_CANCELLED,
    ]
    assert host.ran == [b"wanted"]
    assert all(entry.state is AttemptState.FINISHED for entry in journal.entries())
