"""The shapes of roles: which keys, how many of them, for how long; and what a target is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from fleetwright.verify.evidence import ATTESTATIONS_SUFFIX
from fleetwright.verify.keys import PublicKey
from tuf import __version__ as _tuf_version
from tuf.api.metadata import TOP_LEVEL_ROLE_NAMES

from controlplane.trust.keys import SigningKey

LIBRARY_VERSION: Final = _tuf_version
"""Of python-tuf, for the evidence."""

MOST_KEYS: Final = 16
"""Of one role: more people than ever sit around one table."""

_CHANNEL = re.compile(r"[a-z][a-z0-9-]{0,31}")
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,199}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class RepositoryError(Exception):
    """What was asked of the repository cannot be done; the text names what is wrong and the remedy."""


@dataclass(frozen=True, slots=True)
class Expiries:
    """For how long metadata holds from when it is signed.

    A short life of ``timestamp`` bounds for how long newer metadata can be held back from an agent; a long
    one of the offline roles bounds how often people have to meet.
    """

    root: timedelta = timedelta(days=365)
    targets: timedelta = timedelta(days=365)
    channel: timedelta = timedelta(days=30)
    snapshot: timedelta = timedelta(days=7)
    timestamp: timedelta = timedelta(days=1)
    attesters: timedelta = timedelta(days=730)

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < timedelta(minutes=1):
                raise RepositoryError(f"life of {name}: {getattr(self, name)}: give it a minute at least")


@dataclass(frozen=True, slots=True)
class Thresholds:
    """How many keys the offline roles have, and how many of them must sign."""

    root: int = 2
    root_keys: int = 3
    targets: int = 2
    targets_keys: int = 3

    def __post_init__(self) -> None:
        for name in ("root", "targets"):
            needed, keys = getattr(self, name), getattr(self, f"{name}_keys")
            if not 1 <= needed <= keys <= MOST_KEYS:
                raise RepositoryError(
                    f"role {name}: {needed} of {keys} keys: a threshold is at least 1, at most the number "
                    "of keys, "
                    f"and that at most {MOST_KEYS}"
                )


@dataclass(frozen=True, slots=True)
class RoleKeys:
    """Who may sign as a role, and how many must."""

    keys: tuple[PublicKey, ...]
    threshold: int = 1

    def __post_init__(self) -> None:
        different = len({key.key_id for key in self.keys})
        if different != len(self.keys) or not 1 <= self.threshold <= different <= MOST_KEYS:
            raise RepositoryError(f"{self.threshold} of {different} different keys cannot sign for a role")


@dataclass(frozen=True, slots=True)
class OnlineKeys:
    """The keys that publishing needs."""

    snapshot: SigningKey
    timestamp: SigningKey
    channels: Mapping[str, SigningKey]
    spare: tuple[SigningKey, ...] = ()
    """Keys beside those: of channels to come, and those that are to take the place of another."""


@dataclass(frozen=True, slots=True)
class Target:
    """A file that a channel releases."""

    path: str
    """``<channel>/<name>/<file>``."""
    length: int
    sha256: str
    custom: Mapping[str, Any] = field(default_factory=dict)
    """For agents and people, JSON; TUF gives it no meaning."""

    def __post_init__(self) -> None:
        if self.length < 0 or not _SHA256.fullmatch(self.sha256):
            raise RepositoryError(
                f"target {self.path}: a length and a SHA-256 in lower-case hexadecimal are needed"
            )

    @property
    def is_evidence(self) -> bool:
        """Whether it is a package's attestations, of which a later version takes the place of the earlier."""
        return self.path.endswith(ATTESTATIONS_SUFFIX)


def check_channel(name: str) -> str:
    """Return a channel's name. Raises ``RepositoryError`` for one that breaks its rule."""
    if not _CHANNEL.fullmatch(name) or name in TOP_LEVEL_ROLE_NAMES or name == "trust":
        raise RepositoryError(
            f"channel {name!r}: 1 to 32 lower-case letters, digits and hyphens, a letter first, and none of "
            f"{', '.join(sorted(TOP_LEVEL_ROLE_NAMES))}, trust"
        )
    return name


def target_path(channel: str, name: str, file: str) -> str:
    """Return the path of a file of a package in a channel.

    Raises ``RepositoryError`` for a part that could be read as more than one, or differently by different
    machines.
    """
    for label, part in (("package", name), ("file", file)):
        if not _PART.fullmatch(part):
            raise RepositoryError(
                f"{label} {part!r}: 1 to 200 letters, digits and any of . _ + ~ -, a letter or digit first"
            )
    return f"{check_channel(channel)}/{name}/{file}"


def check_path(channel: str, path: str) -> None:
    """Raise ``RepositoryError`` where a channel may not release ``path``."""
    parts = path.split("/")
    if len(parts) != 3 or parts[0] != channel:
        raise RepositoryError(f"target {path!r}: channel {channel} releases {channel}/<package>/<file> only")
    target_path(*parts)
