"""The seven stages, one file each: plain functions that know nothing of workflows, workers or retries.

A stage gets what the stages before it found, a folder of its own, and the means to say something; it
returns what it found, or raises ``StageFailed``. It may be run again after it was cut off anywhere, so what
it leaves outside of its folder it leaves under a digest or a key.
"""

from __future__ import annotations

from controlplane.packaging.stages.stage import Job, StageDone, StageFailed, StageRun

__all__ = ["Job", "StageDone", "StageFailed", "StageRun"]
