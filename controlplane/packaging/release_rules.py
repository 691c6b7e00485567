"""What shall be released of a package, and under which paths. Pure.

Invariants:

* Nothing of a package is released whose decision does not let agents have it.
* A package is never released without its attestations, nor they without it.
* Two names never become one path.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fleetwright.verify.evidence import ATTESTATIONS_SUFFIX, attestations_path

from controlplane.packaging.store.metadata import TargetRecord
from controlplane.packaging.store.releases import Candidate, Wanted
from controlplane.trust.tuf.roles import target_path

_FOREIGN = re.compile(r"[^A-Za-z0-9._+~-]+")
_GIVEN = re.compile(r"^[0-9a-f]{12}(-|$)")
"""How a part begins that got some of a digest; a name that begins so by itself gets one too."""
_NOT_FIRST = re.compile(r"^[^A-Za-z0-9]+")
_LONGEST = 160
"""Characters of a part of a path: with the suffix of its attestations, it is less than the 200 of TUF's."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A file of attestations: its digest and size, and the digests of its lines."""

    sha256: str
    size: int
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What has to change of a package's paths; ``shown`` is the channel and path that it is shown with."""

    put: tuple[TargetRecord, ...]
    withdraw: tuple[TargetRecord, ...]
    shown: tuple[str, str]

    @property
    def changes(self) -> bool:
        """Whether the metadata has to change."""
        return bool(self.put or self.withdraw)


def path_of(channel: str, name: str, file_name: str) -> str:
    """Return the path of a package's file. Raises ``RepositoryError`` for a bad channel.

    A name with other characters than paths have gets some of its digest, so that no other one becomes it.
    """
    return target_path(channel, _part(name), _part(file_name))


def _part(text: str) -> str:
    plain = _NOT_FIRST.sub("", _FOREIGN.sub("-", text))
    fits = len(text) <= _LONGEST and not text.endswith(ATTESTATIONS_SUFFIX) and not _GIVEN.match(text)
    if plain == text and fits:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    # The end of a file's name says what it is; so does the beginning of a package's.
    kept = plain.removesuffix(ATTESTATIONS_SUFFIX)[-_LONGEST + len(digest) + 1 :]
    return f"{digest}-{kept}" if kept else digest


def paths(candidate: Candidate, wanted: Iterable[Wanted] = ()) -> dict[str, str]:
    """Return under which path a package shall be released in each channel; none where it may not be.

    Where it is released, it stays; ``wanted`` are channels beside those of its own pipelines. Raises
    ``RepositoryError`` for a bad channel.
    """
    if not candidate.decision.releases:
        return {}
    found = {target.channel: target.target_path for target in candidate.live if not target.evidence}
    for one in (*candidate.wanted, *wanted):
        found.setdefault(one.channel, path_of(one.channel, candidate.name, one.file_name))
    return found


def is_agreed(candidate: Candidate, chosen: Mapping[str, str], channel: str = "") -> bool:
    """Return whether what is released and shown is what is ``chosen``, with the attestations that stand."""
    if (candidate.channel, candidate.target_path) != shown(candidate, chosen, channel):
        return False
    lines = " ".join(sha256 for _, sha256 in candidate.evidence)
    expected = dict.fromkeys(chosen.values(), "")
    expected |= {attestations_path(path): lines for path in chosen.values()}
    return {target.target_path: target.evidence for target in candidate.live} == expected


def plan(
    candidate: Candidate, chosen: Mapping[str, str], evidence: Evidence | None, channel: str = ""
) -> Plan:
    """Return what has to change so that ``chosen`` is released; ``channel`` is the one to show it with."""
    put: list[TargetRecord] = []
    if evidence is not None:
        for where, path in chosen.items():
            put.append(TargetRecord(path, where, candidate.sha256, candidate.sha256, candidate.size))
            put.append(
                TargetRecord(
                    attestations_path(path),
                    where,
                    candidate.sha256,
                    evidence.sha256,
                    evidence.size,
                    " ".join(evidence.lines),
                )
            )
    kept = {target.target_path for target in put}
    withdraw = tuple(target for target in candidate.live if target.target_path not in kept)
    fresh = tuple(target for target in put if target not in candidate.live)
    return Plan(fresh, withdraw, shown(candidate, chosen, channel))


def shown(candidate: Candidate, chosen: Mapping[str, str], channel: str = "") -> tuple[str, str]:
    """Return the channel and path that a package is shown with, ``channel`` before others."""
    for one in (channel, candidate.channel, *reversed(list(chosen))):
        if one in chosen:
            return one, chosen[one]
    return "", ""
