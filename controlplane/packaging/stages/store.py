"""STORE: the package that policy let pass is released, with its attestations, to the channel of its pipeline.

The bytes are stored since they were signed, under their digest; here they are verified once more, and the
metadata that agents trust begins to name them. Done twice, it is the same.
"""

from __future__ import annotations

from typing import Protocol

from controlplane.errors import ServiceError, Unavailable
from controlplane.packaging.releasing import Release
from controlplane.packaging.rules import Stage
from controlplane.packaging.stages.stage import Job, StageDone, StageFailed, StageRun
from controlplane.trust.tuf.roles import LIBRARY_VERSION


class Releaser(Protocol):
    """What releases: ``Releases``."""

    async def release(self, package_sha256: str, channel: str, file_name: str) -> Release:
        """Release a package in a channel. Raises a ``ServiceError``."""


def store(releases: Releaser) -> StageRun:
    """Return the stage."""

    async def run(job: Job) -> StageDone:
        signed = job.outcomes.get(Stage.SIGN, {}).get("package")
        if not signed:
            raise StageFailed("PACKAGE_MISSING", "SIGN left no package: run the pipeline from there again")
        job.say("info", f"releasing {signed['file_name']} to {job.pipeline.channel}")
        try:
            made = await releases.release(signed["sha256"], job.pipeline.channel, signed["file_name"])
        except ServiceError as error:
            code = "STORE_UNAVAILABLE" if isinstance(error, Unavailable) else error.reason
            raise StageFailed(code, error.message) from error
        versions = ", ".join(f"{role} {version}" for role, version in made.versions.items())
        job.say("info", f"released as {made.target_path}; metadata: {versions}")
        return StageDone(
            outcome={
                "channel": made.channel,
                "target_path": made.target_path,
                "versions": dict(made.versions),
            },
            tools={"python-tuf": LIBRARY_VERSION},
            inputs={"package": signed["sha256"]},
            outputs={"attestations.jsonl": made.attestations},
        )

    return run
