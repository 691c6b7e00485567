"""By what the simulated agents of one process judge packages: one root, from an option or from an enrolment.

The verifier is loaded when the first agent is told to install something: its libraries take 11 MB, which a
fleet without packages does not need.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from fleetwright.v1 import agent_service_pb2, work_pb2

from agent_sim.host import AttemptReporter, ServerFiles

if TYPE_CHECKING:
    from agent_sim.fleet.simulated_installs import SimulatedInstaller, SimulatedInstalls


class FleetPackages:
    """What the agents share. They are of one installation, which gives each of them the same root: the first
    one that came is kept for all.
    """

    def __init__(self, trusted_root: bytes = b"", folder: Path | None = None) -> None:
        """``trusted_root`` is empty where it is to come from an enrolment; ``folder`` keeps what each has
        seen of the repository, and without it that is forgotten at the end.
        """
        self.trusted_root = trusted_root
        self._folder = folder
        self._installs: SimulatedInstalls | None = None

    def delivered(self, root: bytes) -> bool:
        """Take the root that came with an enrolment, unless there is one; returns whether it was taken."""
        if self.trusted_root or not root:
            return False
        self.trusted_root = root
        return True

    def installer(self, agent_id: str, files: ServerFiles, now: Callable[[], datetime]) -> SimulatedInstaller:
        """Return what verifies the packages of one agent, once there is a root."""
        if self._installs is None:
            from agent_sim.fleet.simulated_installs import SimulatedInstalls

            self._installs = SimulatedInstalls(self.trusted_root, self._folder)
        return self._installs.of(agent_id, files, now)

    def close(self) -> None:
        """Let go of what was shared."""
        if self._installs is not None:
            self._installs.close()


class MemberPackages:
    """The kind ``install`` of one agent."""

    def __init__(
        self, shared: FleetPackages, agent_id: str, files: ServerFiles, now: Callable[[], datetime]
    ) -> None:
        self._shared, self._agent_id, self._files, self._now = shared, agent_id, files, now
        self._installer: SimulatedInstaller | None = None

    @property
    def ready(self) -> bool:
        """Whether there is a root to judge packages by."""
        return bool(self._shared.trusted_root)

    async def run(
        self, assignment: agent_service_pb2.Assignment, reporter: AttemptReporter
    ) -> work_pb2.AttemptResult:
        """Verify the package of an assignment."""
        if self._installer is None:
            self._installer = self._shared.installer(self._agent_id, self._files, self._now)
        return await self._installer.run(assignment, reporter)
