"""A repository with a released package and all the evidence for it, made on the spot."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fleetwright.verify.errors import NotFound
from fleetwright.verify.evidence import Parts, attestations_path
from fleetwright.verify.keys import KEYS_TARGET, Purpose
from fleetwright.verify.predicates import Material, Provenance, Scan, ScanFinding
from fleetwright.verify.statements import Subject
from fleetwright.verify.tuf_client import Limits, TufClient
from fleetwright.verify.verdicts import Decision, ExceptionUsed, RuleOutcome, Verdict
from tuf.api.metadata import MetaFile, Snapshot, Timestamp

from controlplane.trust import dsse, statements
from controlplane.trust.keys import SigningKey, load_key
from controlplane.trust.tuf.ceremony import Online, initialise, load_online, target_file_name
from controlplane.trust.tuf.publishing import publish, signed_by
from controlplane.trust.tuf.roles import Expiries, Target, Thresholds, target_path
from controlplane.trust.tuf.state import RepositoryState, read

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
EXPIRIES = Expiries()
PACKAGE = b"the bytes that are installed\n" * 40
ARTEFACT = b"the bytes before they were signed\n" * 40
PATH = target_path("stable", "curl", "curl-8.1.deb")


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Ceremony:
    """What one ceremony made, read back."""

    online: Online
    root_keys: tuple[SigningKey, ...]
    targets_keys: tuple[SigningKey, ...]


@cache
def ceremony() -> Ceremony:
    """Make a repository once for all tests; nothing of it changes."""
    with TemporaryDirectory() as folder:
        offline, online = Path(folder) / "offline", Path(folder) / "online"
        initialise(
            offline, online, now=NOW, thresholds=Thresholds(), expiries=EXPIRIES, channels=["stable", "beta"]
        )
        return Ceremony(
            load_online(online),
            tuple(load_key(offline / f"root-{number}.pem") for number in (1, 2, 3)),
            tuple(load_key(offline / f"targets-{number}.pem") for number in (1, 2, 3)),
        )


def subject(content: bytes) -> Subject:
    return Subject("curl-8.1.deb", sha(content))


def provenance(package: bytes = PACKAGE, **changes: Any) -> bytes:
    built = Provenance(
        build_type="https://example.org/fleetwright/repack/v1",
        builder="https://example.org/fleetwright/builder",
        invocation="pipelines/1",
        started=NOW - timedelta(minutes=9),
        finished=NOW - timedelta(minutes=8),
        materials=(Material("curl", "", sha(ARTEFACT)),),
    )
    return statements.provenance([subject(package)], replace(built, **changes), external={"artefact": "curl"})


def sbom(package: bytes = PACKAGE) -> bytes:
    bom = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": [{"name": "zlib"}]}
    return statements.cyclonedx([subject(package)], bom)


def scan(sbom_envelope: bytes, package: bytes = PACKAGE, **changes: Any) -> bytes:
    found = Scan(
        scanner="https://example.org/fleetwright/scanner",
        scanner_version="1",
        engines={"fleetwright": "1"},
        advisories=sha(b"advisories"),
        imported=NOW - DAY,
        sbom=sha(sbom_envelope),
        scanned=NOW - timedelta(minutes=6),
        components=1,
        covered=1,
        not_covered=(),
        findings=(ScanFinding("CVE-2029-1", "pkg:deb/debian/zlib@1", "low", "affected", score=2.5),),
    )
    return statements.scan([subject(package)], replace(found, **changes))


def verdict(inputs: tuple[bytes, ...], package: bytes = PACKAGE, **changes: Any) -> bytes:
    made = Verdict(
        decision=Decision.PASS,
        verifier="https://example.org/fleetwright/policy",
        verifier_version="1",
        verified=NOW - timedelta(minutes=5),
        expires=NOW + 90 * DAY,
        resource="pkg:deb/debian/curl@8.1",
        policy="policies/default/3",
        policy_sha256=sha(b"policy"),
        inputs=tuple(sha(envelope) for envelope in inputs),
        rules=(RuleOutcome("critical", "allow"),),
    )
    return statements.verdict([subject(package)], replace(made, **changes))


AN_EXCEPTION = ExceptionUsed("exceptions/1", "CVE-2029-1", "operator/ada", NOW + 120 * DAY)


@dataclass(frozen=True)
class Attested:
    """The envelopes of a package; each can be exchanged."""

    provenance: bytes
    sbom: bytes
    scan: bytes
    verdict: bytes

    @property
    def lines(self) -> bytes:
        return b"\n".join((self.provenance, self.sbom, self.scan, self.verdict)) + b"\n"


def key(purpose: Purpose) -> SigningKey:
    return ceremony().online.attesters[purpose]


def signed(payload: bytes, purpose: Purpose) -> bytes:
    return dsse.sign(payload, [key(purpose)])


@cache
def attested(package: bytes = PACKAGE) -> Attested:
    built = signed(provenance(package), Purpose.PROVENANCE)
    listed = signed(sbom(package), Purpose.SBOM)
    scanned = signed(scan(listed, package), Purpose.SCAN)
    judged = signed(verdict((built, listed, scanned), package), Purpose.VERDICT)
    return Attested(built, listed, scanned, judged)


def target(path: str, content: bytes) -> Target:
    return Target(path, len(content), sha(content))


@dataclass
class Repository:
    """A repository in memory, which a test breaks as it likes; a ``Fetcher`` over it."""

    state: RepositoryState
    targets: dict[str, bytes] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.files.update(self.state.files())

    def release(self, content: dict[str, bytes], channel: str = "stable", now: datetime = NOW) -> None:
        """Publish targets by path, as a server does."""
        wanted = [target(path, data) for path, data in content.items()]
        publication = publish(self.state, channel, wanted, ceremony().online.keys, now, EXPIRIES)
        self.take(publication.state)
        for path, data in content.items():
            self.targets[target_file_name(path, sha(data))] = data

    def take(self, state: RepositoryState) -> None:
        """Show another state; older files stay, as on a server."""
        self.state = state
        self.files.update(state.files())

    def metadata(self, name: str) -> Iterator[bytes]:
        return self._given(self.files, name)

    def target(self, path: str) -> Iterator[bytes]:
        return self._given(self.targets, path)

    def _given(self, files: dict[str, bytes], name: str) -> Iterator[bytes]:
        self.asked.append(name)
        if name not in files:
            raise NotFound(f"{name}: not here")
        content = files[name]
        yield from (content[start : start + 997] for start in range(0, len(content), 997))


def empty_repository() -> Repository:
    """A repository as the ceremony made it."""
    online = ceremony().online
    document = online.key_document
    return Repository(online.state, {target_file_name(KEYS_TARGET, sha(document)): document})


def repository() -> Repository:
    """A repository that has released the package and its attestations."""
    made = empty_repository()
    made.release({PATH: PACKAGE, attestations_path(PATH): attested().lines})
    return made


def client(
    folder: Path, fetcher: Any, now: datetime = NOW, limits: Limits | None = None, **more: Any
) -> TufClient:
    root = ceremony().online.trusted_root
    return TufClient(folder, root, fetcher, lambda: now, limits=limits or Limits(), **more)


def parts(package: bytes = PACKAGE, lines: bytes | None = None) -> Parts:
    content = attested().lines if lines is None else lines
    return Parts(lambda: iter([package]), content, ceremony().online.key_document)


def reseal(repo: Repository, meta: dict[str, MetaFile]) -> None:
    """Sign a snapshot and a timestamp of an attacker's wish with the right keys, as the next versions."""
    snapshot, stamp = read(Snapshot, repo.state.snapshot), read(Timestamp, repo.state.timestamp)
    snapshot.signed.meta = meta
    snapshot.signed.version += 1
    stamp.signed.version += 1
    content = signed_by(snapshot, [ceremony().online.keys.snapshot], NOW + DAY)
    stamp.signed.snapshot_meta = MetaFile(snapshot.signed.version)
    repo.files[f"{snapshot.signed.version}.snapshot.json"] = content
    repo.files["timestamp.json"] = signed_by(stamp, [ceremony().online.keys.timestamp], NOW + DAY)
