"""The factory's own stages, put together: the one place that knows what each of them is made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fleetwright.verify.keys import Purpose

from controlplane.clock import Clock
from controlplane.packaging.blobs import Blobs
from controlplane.packaging.isolation.records import IsolationSettings
from controlplane.packaging.judging import Judging
from controlplane.packaging.releasing import Releases
from controlplane.packaging.rules import Stage
from controlplane.packaging.stages import StageRun
from controlplane.packaging.stages.attesting import KeyFor
from controlplane.packaging.stages.build import build
from controlplane.packaging.stages.intake import intake
from controlplane.packaging.stages.policy import policy
from controlplane.packaging.stages.sbom import sbom
from controlplane.packaging.stages.scan import scan
from controlplane.packaging.stages.sign import OriginFor, sign
from controlplane.packaging.stages.store import store
from controlplane.packaging.stages.workshop import Workshop
from controlplane.storage.database import Database
from controlplane.trust.keys import SigningKey


@dataclass(frozen=True, slots=True)
class Means:
    """What stages work with. ``builder_id`` is the URI by which provenance names who built."""

    database: Database
    clock: Clock
    blobs: Blobs
    isolation: IsolationSettings
    key_for: KeyFor
    origin_for: OriginFor
    builder_id: str
    judging: Judging
    releases: Releases


def stages_of(means: Means) -> Mapping[Stage, StageRun]:
    """Return all seven stages."""
    workshop = Workshop(means.blobs, means.isolation)
    return {
        Stage.INTAKE: intake(workshop),
        Stage.BUILD: build(workshop, means.clock, means.builder_id),
        Stage.SIGN: sign(workshop, means.database, means.clock, means.key_for, means.origin_for),
        Stage.SBOM: sbom(workshop, means.key_for),
        Stage.SCAN: scan(means.blobs, means.judging),
        Stage.POLICY: policy(means.blobs, means.judging, means.releases, means.clock),
        Stage.STORE: store(means.releases),
    }


class Attesters(Mapping[Purpose, SigningKey]):
    """The keys that attest, as they are at each look: they may be set up while the server runs."""

    def __init__(self, key_for: KeyFor) -> None:
        self._key_for = key_for

    def __getitem__(self, purpose: Purpose) -> SigningKey:
        """Return a key. Raises ``KeyError`` where there is none here."""
        key = self._key_for(purpose)
        if key is None:
            raise KeyError(purpose)
        return key

    def __iter__(self) -> Iterator[Purpose]:
        return (purpose for purpose in Purpose if self._key_for(purpose) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)
