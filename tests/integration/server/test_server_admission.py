"""The gate in front of new sessions, on the real server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc

from tests.support.agents import RawAgent, RawSession
from tests.support.fleet import Effects, Fleet
from tests.support.in_process import LocalSite, serving
from tests.support.streams import until


def narrowed(site: LocalSite) -> None:
    """Let one Hello pass at a time."""
    assert site.server is not None
    site.server.gateway._admissions._gate._width = 1.0


def counted(site: LocalSite, name: str, **labels: str) -> float:
    assert site.server is not None
    return site.server.engines.metrics.registry.get_sample_value(name, labels) or 0.0


async def test_one_that_finds_the_gate_shut_is_given_a_slot_and_comes_in_on_the_same_connection(
    site: LocalSite, agent: RawAgent
) -> None:
    narrowed(site)
    assert site.server is not None
    with site.server.gateway._admissions.passing("someone-else", live=False):
        stub = agent.connect()
        stream = agent.heartbeat(stub)
        await stream.send(hello=agent.hello())
        refused = await stream.refused()
        assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")
        assert refused.retry_after is not None
        assert refused.retry_after.total_seconds() > 0
        assert counted(site, "fleetwright_admission_backlog") == 1
        handshakes = counted(site, "fleetwright_tls_handshakes_total", listener="agents")
        await asyncio.sleep(refused.retry_after.total_seconds())
        # The gate is as full as before: this one has a place of its own.
        stream = agent.heartbeat(stub)
        await stream.send(hello=agent.hello())
        await stream.expect("welcome")
    assert counted(site, "fleetwright_tls_handshakes_total", listener="agents") == handshakes
    assert counted(site, "fleetwright_admissions_total", verdict="refused") == 1
    assert counted(site, "fleetwright_admissions_total", verdict="at_slot") == 1
    assert counted(site, "fleetwright_admission_backlog") == 0


async def test_a_renewed_session_takes_over_through_a_shut_gate(site: LocalSite, agent: RawAgent) -> None:
    former = await agent.come()
    narrowed(site)
    assert site.server is not None
    with site.server.gateway._admissions.passing("someone-else", live=False):
        session: RawSession = await agent.come()
    assert (await former.stream.refused()).reason == "SESSION_REPLACED"
    assert session.epoch == former.epoch + 1
    assert counted(site, "fleetwright_admissions_total", verdict="replaces") == 1


async def test_reference_agents_come_in_one_by_one_at_their_slots(folder: Path, tmp_path: Path) -> None:
    async with serving(folder) as site:
        admin = site.admin()
        _, token = await admin.token(max_uses=20)
        identities = [(await site.enroll(f"node-{number}", token)).identity for number in range(20)]
        narrowed(site)
        watch = await admin.watch_agents()
        fleet = Fleet(identities, f"127.0.0.1:{site.ports.agents}", Effects(tmp_path / "effects"))
        online: set[str] = set()
        while len(online) < len(identities):
            change = await until(watch, lambda c: c.agent.session_epoch > 0)
            online.add(change.agent.agent_id)
        watch.cancel()
        # As many connections as agents: whoever was refused kept its own.
        assert counted(site, "fleetwright_tls_handshakes_total", listener="agents") == len(identities)
        await fleet.stop()
