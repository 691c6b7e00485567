"""Why a package is not installed, under stable words: ``InstallResult.reason_code``.

The words are for programs and never change their meaning; the text beside each is for people, and says what
was found and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fleetwright.verify import errors
from fleetwright.verify.reports import Outcome, Report

from agent_sim.host import FilesDamagedError, FilesEndlessError, FilesError, FileUnknownError

_REASON_CHARACTERS: Final = 2000
"""Of the contract's 2,048 bytes of a reason."""

CODES: Final[Mapping[type[errors.VerificationError], str]] = {
    errors.Rollback: "METADATA_ROLLED_BACK",
    errors.Expired: "METADATA_EXPIRED",
    errors.MixAndMatch: "METADATA_MIXED",
    errors.MalformedMetadata: "METADATA_MALFORMED",
    errors.EndlessData: "ENDLESS_DATA",
    errors.SlowData: "SLOW_DATA",
    errors.WrongTarget: "WRONG_BYTES",
    errors.TooFewSignatures: "TOO_FEW_SIGNATURES",
    errors.UnknownRole: "UNKNOWN_ROLE",
    errors.UnknownTarget: "NOT_RELEASED",
    errors.ClockError: "CLOCK_TURNED_BACK",
    errors.StateError: "STATE_UNUSABLE",
    errors.NotFound: "FILE_MISSING",
    errors.FetchFailed: "FETCH_FAILED",
}
"""What the client of the metadata refuses."""

ALREADY_INSTALLED: Final = "ALREADY_INSTALLED"
"""It was there and was found again: nothing had to be done."""
SIMULATED: Final = "SIMULATED"
"""A simulated agent verified the package; no file was installed."""
ANOTHER_PACKAGE: Final = "ANOTHER_PACKAGE"
"""The metadata releases other bytes under the path than the task means."""
CHANNEL_NOT_ALLOWED: Final = "CHANNEL_NOT_ALLOWED"
TYPE_NOT_ALLOWED: Final = "TYPE_NOT_ALLOWED"
COMMAND_NOT_ALLOWED: Final = "COMMAND_NOT_ALLOWED"
TOO_LARGE: Final = "TOO_LARGE"
NO_TRUSTED_ROOT: Final = "NO_TRUSTED_ROOT"
"""The host's own policy, or what it names, does not let the package in."""
NO_SPACE: Final = "NO_SPACE"
PLATFORM: Final = "PLATFORM_UNSUPPORTED"
PACKAGE_DAMAGED: Final = "PACKAGE_DAMAGED"
"""Verified, and yet not what a package has to be: the factory that made it is at fault."""
COMMAND_TAKEN: Final = "COMMAND_TAKEN"
PREFIX_UNUSABLE: Final = "PREFIX_UNUSABLE"
DPKG_FAILED: Final = "DPKG_FAILED"
NOT_DETECTED: Final = "NOT_DETECTED"
ROLLBACK_FAILED: Final = "ROLLBACK_FAILED"
"""The new version is not good, and what was before could not be brought back."""
INTERRUPTED: Final = "INTERRUPTED"
"""The agent ended while it installed, and took the installation back when it started again."""
DISK_FAILED: Final = "DISK_FAILED"
LEDGER_UNUSABLE: Final = "LEDGER_UNUSABLE"
"""The agent's own record of installations cannot be read."""


_CHECK_CODES: Final = {("release", Outcome.WRONG): CODES[errors.WrongTarget]}
"""Checks that say what an error above says too."""


class InstallError(Exception):
    """A package is not installed; nothing of it took effect unless the text says so."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason[:_REASON_CHARACTERS]


class NotAllowedError(InstallError):
    """The host's own policy does not allow it; nothing was done."""


def of_files(error: FilesError) -> errors.TufError:
    """Return what a file that the server does not give means: a server that says of its own store that it was
    changed has other bytes than those that were released.
    """
    if isinstance(error, FileUnknownError):
        return errors.NotFound(str(error))
    if isinstance(error, FilesDamagedError):
        return errors.WrongTarget(f"{error}: the server does not have what was released")
    if isinstance(error, FilesEndlessError):
        return errors.EndlessData(f"{error}: do not trust where it came from")
    return errors.FetchFailed(str(error))


def of_error(error: errors.VerificationError) -> InstallError:
    """Return what is reported of an error of ``fleetwright.verify``."""
    for kind in type(error).__mro__:
        if kind in CODES:
            return InstallError(CODES[kind], str(error))
    return InstallError("NOT_VERIFIED", str(error))


def of_report(report: Report, *, without: frozenset[str] = frozenset()) -> InstallError | None:
    """Return what is reported of a report whose checks do not all hold; None where they do.

    The first failure gives the code, for example ``VERDICT_WRONG`` or ``SBOM_MISSING``, and the reason has
    all of them. Checks named in ``without`` are not asked for.
    """
    failures = [check for check in report.failures if check.name not in without]
    if not report.checks or not failures:
        return None if report.checks else InstallError("NOT_VERIFIED", "nothing was verified")
    first = failures[0]
    code = _CHECK_CODES.get((first.name, first.outcome)) or f"{first.name}_{first.outcome.value}".upper()
    words = "; ".join(f"{check.name}: {check.detail}" for check in failures)
    return InstallError(code, words)
