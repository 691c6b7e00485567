"""What python-tuf's errors mean: which attack or accident was met, in which file, and what to do.

Its errors say little apart; which file was fetched last, and what that file and the trusted metadata say,
tell them apart here. Texts of the library are passed on, never decided by.
"""

from __future__ import annotations

import json
from typing import Final
from urllib.parse import unquote

from tuf.api import exceptions
from tuf.ngclient import Updater

from fleetwright.verify.errors import (
    EndlessData,
    Expired,
    FetchFailed,
    MalformedMetadata,
    MixAndMatch,
    NotFound,
    Rollback,
    SlowData,
    TooFewSignatures,
    TufError,
    UnknownRole,
    WrongTarget,
)
from fleetwright.verify.fetching import Adapter

_OLDER: Final = "older than what was seen before: do not trust the repository, and tell its operator"
_MIXED: Final = "these files were not published together: try again, then tell the repository's operator"


def explain(error: Exception, adapter: Adapter, updater: Updater | None) -> TufError:
    """Return our error for one of python-tuf's."""
    if isinstance(error, exceptions.DownloadError):
        return _download(error, adapter)
    if isinstance(error, exceptions.ExpiredMetadataError):
        return Expired(
            f"{error}: the repository is stuck, newer metadata is held back, or this machine's clock is "
            "wrong: "
            "check the clock, then tell the repository's operator"
        )
    if isinstance(error, exceptions.UnsignedMetadataError):
        return TooFewSignatures(
            f"{error}: {_file(adapter)} is not signed by enough of its role's keys: do not trust it"
        )
    if isinstance(error, exceptions.BadVersionNumberError):
        return _version(error, adapter, updater)
    if isinstance(error, exceptions.LengthOrHashMismatchError):
        if adapter.name.endswith(".json") and adapter.content:
            return MixAndMatch(f"{_file(adapter)}: {error}: {_MIXED}")
        return WrongTarget(f"{_file(adapter)}: {error}: do not use it, and fetch it again")
    return _other(error, adapter, updater)


def malformed(adapter: Adapter, error: Exception) -> MalformedMetadata:
    """Return the error for metadata that cannot be read."""
    return MalformedMetadata(f"{_file(adapter)}: {error}: not readable as metadata: fetch it again")


def _download(error: exceptions.DownloadError, adapter: Adapter) -> TufError:
    if isinstance(error.__cause__, EndlessData | WrongTarget):
        return type(error.__cause__)(f"{_file(adapter)}: {error}")
    if isinstance(error, exceptions.DownloadLengthMismatchError):
        return EndlessData(f"{_file(adapter)}: {error}: do not trust where it came from")
    if isinstance(error, exceptions.SlowRetrievalError):
        return SlowData(
            f"{_file(adapter)}: {error or 'it came too slowly'}: try again, or from another place"
        )
    if isinstance(error, exceptions.DownloadHTTPError) and error.status_code == 404:
        return NotFound(f"{_file(adapter)}: the repository does not have it: {error}")
    return FetchFailed(f"{_file(adapter)}: {error}: try again when the repository can be reached")


def _version(error: Exception, adapter: Adapter, updater: Updater | None) -> TufError:
    """A version that is too low is a rollback; one that another file does not name is a mix."""
    stated, expected = _stated_version(adapter), _expected_version(adapter, updater)
    if expected is not None and stated != expected:
        return MixAndMatch(f"{_file(adapter)}: {error}: {_MIXED}")
    return Rollback(f"{_file(adapter)}: {error}: {_OLDER}")


def _stated_version(adapter: Adapter) -> int | None:
    try:
        version = json.loads(adapter.content)["signed"]["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return version if isinstance(version, int) else None


def _expected_version(adapter: Adapter, updater: Updater | None) -> int | None:
    """Return the version that the file above names for the one fetched last; None where none does."""
    number, _, role = unquote(adapter.name).removesuffix(".json").partition(".")
    if updater is None or not number.isdecimal():
        return None
    if role == "root":
        return int(number)
    trusted = updater._trusted_set
    if role == "snapshot":
        return int(trusted.timestamp.snapshot_meta.version) if "timestamp" in trusted else None
    meta = trusted.snapshot.meta.get(f"{role}.json") if "snapshot" in trusted else None
    return int(meta.version) if meta is not None else None


def _other(error: Exception, adapter: Adapter, updater: Updater | None) -> TufError:
    if updater is not None:
        trusted = updater._trusted_set
        if "snapshot" in trusted and "targets" in trusted:
            roles = trusted.targets.delegations.roles if trusted.targets.delegations else None
            unknown = [role for role in roles or () if f"{role}.json" not in trusted.snapshot.meta]
            if unknown:
                return UnknownRole(f"role {unknown[0]}: delegated to, and not in the snapshot: {_MIXED}")
        if adapter.name.endswith("snapshot.json") and "snapshot" in trusted and _lost(adapter, updater):
            return Rollback(f"{_file(adapter)}: {error}: {_OLDER}")
    return malformed(adapter, error)


def _lost(adapter: Adapter, updater: Updater) -> bool:
    """Whether the snapshot that was fetched last forgets a role that the trusted one has."""
    try:
        meta = json.loads(adapter.content)["signed"]["meta"]
        return not updater._trusted_set.snapshot.meta.keys() <= meta.keys()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def _file(adapter: Adapter) -> str:
    return unquote(adapter.name) or "the trusted root"
