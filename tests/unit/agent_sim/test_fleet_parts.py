from __future__ import annotations

import asyncio
import random
import resource
from collections import Counter
from pathlib import Path

import pytest
from fleetwright.v1 import agent_service_pb2, work_pb2
from hypothesis import given
from hypothesis import strategies as st

from agent_sim.fleet.counters import Counters, MemberObserver
from agent_sim.fleet.machine import TooFewFilesError, allow_connections
from agent_sim.fleet.member import Member
from agent_sim.fleet.profiles import Profile, assign, parse_shares
from agent_sim.fleet.witness import Witness


def test_what_the_shares_leave_is_healthy() -> None:
    shares = parse_shares(["flaky=0.25", "hung=0.5"])
    assert shares == {Profile.FLAKY: 0.25, Profile.HUNG: 0.5, Profile.HEALTHY: 0.25}


@pytest.mark.parametrize("text", ["flaky", "flaky=x", "nice=0.1", "flaky=1.1", "flaky=-1", "flaky=nan", ""])
def test_a_malformed_share_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="expected NAME=SHARE") as caught:
        parse_shares([text])
    assert repr(text) in str(caught.value)


def test_shares_of_more_than_all_are_refused() -> None:
    with pytest.raises(ValueError, match=r"add up to 1\.2"):
        parse_shares(["flaky=0.6", "hung=0.6"])


@given(st.integers(0, 500), st.integers())
def test_every_agent_has_a_profile_and_the_seed_decides_which(agents: int, seed: int) -> None:
    shares = parse_shares(["flaky=0.1", "slow-reader=0.05"])
    profiles = assign(shares, agents, random.Random(seed))
    assert profiles == assign(shares, agents, random.Random(seed))
    counts = Counter(profiles)
    assert sum(counts.values()) == agents
    assert counts[Profile.FLAKY] == int(agents * 0.1 + 1e-9)


def test_the_same_seed_makes_the_same_agent() -> None:
    facts = [
        Member("sim-1", Profile.HEALTHY, seed, Counters(), None, None).host.facts() for seed in ("1", "1")
    ]
    assert facts[0] == facts[1]


async def test_which_tasks_of_a_flaky_agent_fail_is_the_seeds_alone() -> None:
    async def outcomes(samplings: int) -> list[int]:
        host = Member("sim-1", Profile.FLAKY, "7", Counters(), None, None).host
        found = []
        for number in range(60):
            for _ in range(samplings):
                await host.sample()
            spec = work_pb2.TaskSpec(echo=work_pb2.EchoSpec(payload=b"x"))
            assignment = agent_service_pb2.Assignment(attempt_id=str(number), task="tasks/1", spec=spec)
            found.append(int((await host.run(assignment, _Silent())).outcome))
        return found

    seldom, often = await outcomes(0), await outcomes(3)
    assert seldom == often
    assert len(set(seldom)) == 2


class _Silent:
    async def output(self, stream: work_pb2.OutputStream.ValueType, data: bytes) -> None:
        """Nobody reads it."""

    def progress(
        self,
        percent: int,
        message: str,
        status: work_pb2.DeploymentStatus.ValueType = work_pb2.DEPLOYMENT_STATUS_UNSPECIFIED,
    ) -> None:
        """Nobody asks."""


async def test_the_witness_has_every_effect_once_before_it_counts(tmp_path: Path) -> None:
    witness = Witness(tmp_path / "effects")

    async def one(number: int) -> None:
        await witness.record(f"tasks/{number}", f"a{number}", "sim-1")
        assert f"tasks/{number} a{number} sim-1\n" in (tmp_path / "effects").read_text()

    await asyncio.gather(*(one(number) for number in range(20)))
    await witness.close()
    assert sorted((tmp_path / "effects").read_text().splitlines()) == sorted(
        f"tasks/{number} a{number} sim-1" for number in range(20)
    )


def test_an_agent_whose_session_is_taken_over_by_its_own_counts_once() -> None:
    counters = Counters()
    observer = MemberObserver("sim-1", counters, None, random.Random(1))
    observer.connected(1)
    observer.connected(2)
    observer.disconnected("SUPERSEDED")
    assert (counters.connected, counters.peak_connected, counters.reconnects) == (1, 1, 0)
    observer.disconnected("UNAVAILABLE")
    observer.connected(3)
    assert (counters.connected, counters.reconnects) == (1, 1)


def test_too_few_files_are_told_with_how_many_agents_fit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        pytest.skip("this machine has no limit of open files")
    with pytest.raises(TooFewFilesError, match=rf"enough for {hard - 256} agents"):
        allow_connections(hard)
