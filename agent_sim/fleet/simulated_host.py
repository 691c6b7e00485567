"""A host that does not exist: plausible answers, each of which says that it is simulated."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable, Sequence

from fleetwright.v1 import agent_service_pb2, work_pb2

from agent_sim.fleet.packages import MemberPackages
from agent_sim.fleet.profiles import Profile
from agent_sim.host import AttemptReporter
from agent_sim.protocol.clock import Clock

_FLAKY_FAILURES = 0.2
"""Share of a flaky agent's tasks that fail."""
_GIB = 1024**3

Effect = Callable[[str, str], Awaitable[None]]


class SimulatedHost:
    """Implements Host. Echo is real, and so is what is verified of packages; everything else is invented,
    from the agent's own seed.
    """

    def __init__(
        self,
        agent_id: str,
        profile: Profile,
        clock: Clock,
        rng: random.Random,
        effect: Effect,
        installer: MemberPackages | None = None,
    ) -> None:
        """``installer`` verifies packages; without it they are refused."""
        self._installer = installer
        self._agent_id = agent_id
        self._profile = profile
        self._clock = clock
        self._rng = rng
        # Whether the n-th task fails must not depend on how often was measured before it.
        self._failures = random.Random(rng.random())  # noqa: S311 - simulation, not secrecy
        self._effect = effect
        self._began = clock.monotonic()
        self._memory = rng.choice((4, 8, 16, 32)) * _GIB
        self._facts = work_pb2.HostFacts(
            hostname=f"{agent_id}.simulated",
            os_family="linux",
            os_name="Simulated Linux",
            os_version=rng.choice(("11", "12", "13")),
            kernel_version="6.1.0-simulated",
            architecture=rng.choice(("x86_64", "aarch64")),
        )

    def facts(self) -> work_pb2.HostFacts:
        """Return invented facts."""
        return self._facts

    def task_kinds(self) -> Sequence[str]:
        """Return every kind of the contract; "install" where there is a root to judge packages by."""
        kinds = ("inventory", "script", "logs", "echo")
        return (*kinds, "install") if self._installer is not None and self._installer.ready else kinds

    def inventory_digest(self) -> str:
        """Return "": no inventory is taken before one is asked for."""
        return ""

    async def sample(self) -> Sequence[work_pb2.TelemetryPoint]:
        """Return invented measurements, by the agent's own clock."""
        rng = self._rng
        values = {
            "cpu.used_ratio": rng.betavariate(2, 5),
            "memory.used_bytes": self._memory * rng.uniform(0.3, 0.8),
            "disk.used_ratio": rng.uniform(0.2, 0.7),
            "network.received_bytes": rng.expovariate(1e-6),
            "uptime_seconds": self._clock.monotonic() - self._began,
        }
        now = self._clock.now()
        points = []
        for metric, value in values.items():
            point = work_pb2.TelemetryPoint(metric=metric, value=value)
            point.time.FromDatetime(now)
            points.append(point)
        return points

    async def run(
        self, assignment: agent_service_pb2.Assignment, reporter: AttemptReporter
    ) -> work_pb2.AttemptResult:
        """Pretend to do the work; the effect is witnessed before the result is given."""
        if self._profile is Profile.HUNG:
            await _never()
        kind = assignment.spec.WhichOneof("kind")
        if kind is None:
            return _ended(work_pb2.OUTCOME_REFUSED, "the simulated agent does not know this kind of work")
        if self._profile is Profile.FLAKY and self._failures.random() < _FLAKY_FAILURES:
            return _ended(work_pb2.OUTCOME_FAILED, "simulated: a flaky agent's task failed")
        result = await self._work(kind, assignment, reporter)
        if result.outcome == work_pb2.OUTCOME_SUCCEEDED:
            await self._effect(assignment.task, assignment.attempt_id)
        return result

    async def _work(
        self, kind: str, assignment: agent_service_pb2.Assignment, reporter: AttemptReporter
    ) -> work_pb2.AttemptResult:
        if kind == "install":
            return await self._install(assignment, reporter)
        result = work_pb2.AttemptResult(outcome=work_pb2.OUTCOME_SUCCEEDED)
        if kind == "echo":
            echo = assignment.spec.echo
            if echo.HasField("delay"):
                await asyncio.sleep(echo.delay.ToTimedelta().total_seconds())
            result.echo.payload = echo.payload
        elif kind == "inventory":
            result.inventory.CopyFrom(self._inventory(assignment.spec.inventory))
        elif kind == "script":
            text = f"simulated: {assignment.spec.script.interpreter} was not run by {self._agent_id}\n"
            await reporter.output(work_pb2.OUTPUT_STREAM_STDOUT, text.encode())
            result.script.exit_status = 0
        else:
            text = f"simulated: {assignment.spec.logs.path} of {self._agent_id} does not exist\n"
            await reporter.output(work_pb2.OUTPUT_STREAM_LOG, text.encode())
            result.logs.file_bytes = len(text)
        return result

    async def _install(
        self, assignment: agent_service_pb2.Assignment, reporter: AttemptReporter
    ) -> work_pb2.AttemptResult:
        if self._installer is None or not self._installer.ready:
            words = (
                "simulated: no root to judge packages by: the server had none when this agent was enrolled; "
                "enrol it again now that there is one, or start fleetwright-sim with --trusted-root"
            )
            return _ended(work_pb2.OUTCOME_REFUSED, words)
        return await self._installer.run(assignment, reporter)

    def _inventory(self, spec: work_pb2.InventorySpec) -> work_pb2.InventoryResult:
        packages = [("simulated-base", "1.0"), ("simulated-shell", "5.2")] if spec.include_packages else []
        inventory = work_pb2.InventoryResult(
            host=self._facts,
            cpu_model="simulated processor",
            cpu_count=4,
            memory_bytes=self._memory,
            disks=[work_pb2.Disk(mount_point="/", filesystem="simulated", total_bytes=100 * _GIB)],
            packages=[
                work_pb2.InstalledPackage(manager="simulated", name=name, version=version)
                for name, version in packages
            ],
            missing=["simulated: this host does not exist"],
        )
        inventory.digest = hashlib.sha256(inventory.SerializeToString(deterministic=True)).hexdigest()
        return inventory


async def _never() -> None:
    """Wait for ever. The run limit ends it, but the streams of a hung agent no longer say so."""
    await asyncio.get_running_loop().create_future()


def _ended(outcome: work_pb2.Outcome.ValueType, reason: str) -> work_pb2.AttemptResult:
    return work_pb2.AttemptResult(outcome=outcome, reason=reason)
