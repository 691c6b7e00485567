"""What is reported of an installation, within the limits of the contract."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from fleetwright.v1 import work_pb2
from fleetwright.verify.errors import VerificationError

from agent_sim.released import reasons
from agent_sim.released.reasons import InstallError, NotAllowedError

INSTALLED: Final = work_pb2.DEPLOYMENT_STATUS_INSTALLED
FAILED: Final = work_pb2.DEPLOYMENT_STATUS_FAILED

_REASON_BYTES: Final = 2048
_MOST_CHECKS: Final = 32
_VERSION_CHARACTERS: Final = 256


@dataclass(slots=True)
class Findings:
    """What is known of an attempt by now: it stands in the result, however that ends."""

    verified: Sequence[str] = field(default_factory=list)
    """Names of the checks that held, in their order."""
    downloaded: int = 0
    previous_version: str = ""

    def add_downloaded(self, count: int) -> None:
        """Count bytes that were fetched."""
        self.downloaded += count


def result(
    status: work_pb2.DeploymentStatus.ValueType,
    found: Findings,
    *,
    code: str = "",
    reason: str = "",
    refused: bool = False,
) -> work_pb2.AttemptResult:
    """Return the result of an attempt that ended with ``status``; ``refused`` by the host's own policy."""
    failed = work_pb2.OUTCOME_REFUSED if refused else work_pb2.OUTCOME_FAILED
    return work_pb2.AttemptResult(
        outcome=work_pb2.OUTCOME_SUCCEEDED if status == INSTALLED else failed,
        reason=reason.encode("utf-8", "replace")[:_REASON_BYTES].decode("utf-8", "ignore"),
        install=work_pb2.InstallResult(
            status=status,
            reason_code=code,
            previous_version=found.previous_version[:_VERSION_CHARACTERS],
            verified=list(found.verified)[:_MOST_CHECKS],
            downloaded_bytes=found.downloaded,
        ),
    )


def refusal(error: Exception, found: Findings) -> work_pb2.AttemptResult:
    """Return the result for what an installation may raise; raises ``error`` itself where it may not."""
    if isinstance(error, VerificationError):
        error = reasons.of_error(error)
    if isinstance(error, InstallError):
        refused = isinstance(error, NotAllowedError)
        return result(FAILED, found, code=error.code, reason=error.reason, refused=refused)
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        code = reasons.NO_SPACE if full else reasons.DISK_FAILED
        words = f"{error.filename or 'the disk'}: {error.strerror or type(error).__name__}"
        return result(FAILED, found, code=code, reason=words)
    raise error
