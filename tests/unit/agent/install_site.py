"""A host on which tests install packages, and the server that it fetches them from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import protovalidate
from fleetwright.v1 import work_pb2

from agent_sim.agent.installing.task import InstallTask
from agent_sim.agent.rules import InstallRules
from agent_sim.host import AttemptReporter
from tests.support.install_world import QUICK, Package, ServedRepository, archive, release
from tests.unit.agent.reporting import Recorder
from tests.unit.verify import evidence_world as world

INSTALLED = work_pb2.DEPLOYMENT_STATUS_INSTALLED
FAILED = work_pb2.DEPLOYMENT_STATUS_FAILED
ROLLED_BACK = work_pb2.DEPLOYMENT_STATUS_ROLLED_BACK
ALL_CHECKS = [
    "tuf", "release", "keys", "attestations", "signature", "provenance", "sbom", "scan", "verdict",
]  # fmt: skip


class Site:
    """A host with a prefix, and the server that it fetches from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.prefix = folder / "opt"
        self.state = folder / "state"
        self.files = ServedRepository()
        self.now = world.NOW
        root = folder / "root.json"
        root.write_bytes(world.ceremony().online.trusted_root)
        root.chmod(0o644)
        self.rules = InstallRules(root, ("stable",), self.prefix, False, "@agent", 1 << 30)
        self.tasks: list[InstallTask] = []

    def task(self, **options: Any) -> InstallTask:
        """A process of the agent: what an earlier one left is on the disk alone."""
        task = InstallTask(self.rules, self.state, self.files, lambda: self.now, patience=QUICK, **options)
        self.tasks.append(task)
        return task

    def released(self, version: str = "1.0", **parts: Any) -> Package:
        package = archive(self.folder, version, **parts)
        release(self.files.repository, package)
        return package

    async def install(
        self,
        package: Package,
        reporter: AttemptReporter | None = None,
        task: InstallTask | None = None,
    ) -> work_pb2.AttemptResult:
        result = await (task or self.task()).run(package.assignment(), reporter or Recorder())
        protovalidate.validate(result)
        return result

    def said(self) -> str:
        """What the command of the package that is installed prints."""
        with os.popen(str(self.prefix / "bin" / "tool")) as output:
            return output.read().strip()

    def versions(self) -> list[str]:
        folder = self.prefix / "versions" / "tool"
        return sorted(path.name.partition("_")[0] for path in folder.iterdir()) if folder.exists() else []


def broken(version: str) -> dict[str, Any]:
    """A manifest whose package cannot be detected."""
    return {
        "detect": {
            "kind": "command",
            "arguments": ["bin/tool"],
            "exit_status": 7,
            "output": "",
            "timeout_seconds": 5,
        }
    }
