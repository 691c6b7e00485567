"""SIGN: the final bytes, and who says how they came to be.

A ``.deb`` gets an OpenPGP signature of its own; for every package the provenance that BUILD wrote is attested
in a DSSE envelope whose subjects are the digests of the final bytes. Each signature is looked at by another
implementation than the one that made it; one that is refused there ends the stage, and nothing is called
verified that was not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from fleetwright.verify.keys import Purpose
from fleetwright.verify.statements import PROVENANCE, Subject

from controlplane.clock import Clock, to_micros
from controlplane.packaging.blobs import BlobMissing
from controlplane.packaging.building.work import DEB
from controlplane.packaging.isolation import records as isolation
from controlplane.packaging.isolation.logs import printable
from controlplane.packaging.rules import Stage
from controlplane.packaging.sbom.tools import own_version
from controlplane.packaging.signing.gpgorigin import attach, described, detached
from controlplane.packaging.signing.keys import OriginKey
from controlplane.packaging.signing.states import SignatureState, SigningFailed, not_applicable
from controlplane.packaging.stages.attesting import KeyFor, attest, key_of
from controlplane.packaging.stages.intake import given_of
from controlplane.packaging.stages.stage import Job, StageDone, StageFailed, StageRun
from controlplane.packaging.stages.workshop import Workshop, bad_result, together
from controlplane.packaging.store import signatures
from controlplane.storage.database import Database
from controlplane.trust.statements import statement

OriginFor = Callable[[], OriginKey | None]
"""Finds the key that ``.deb``s are signed with; None where there is none. May raise ``SigningFailed``."""

_REPORTED: Final = {
    SignatureState.SIGNED_VERIFIED: "VERIFIED",
    SignatureState.SIGNED_UNVERIFIED: "SIGNED",
}


@dataclass(frozen=True, slots=True)
class _Final:
    """A package with its final bytes."""

    file: Mapping[str, Any]
    """As the outcome has it."""
    report: Mapping[str, str]
    isolation: Mapping[str, str]


def sign(
    workshop: Workshop, database: Database, clock: Clock, key_for: KeyFor, origin_for: OriginFor
) -> StageRun:
    """Return the stage."""
    return _Signing(workshop, database, clock, key_for, origin_for)


@dataclass(frozen=True, slots=True)
class _Signing:
    workshop: Workshop
    database: Database
    clock: Clock
    key_for: KeyFor
    origin_for: OriginFor

    async def __call__(self, job: Job) -> StageDone:
        before = job.outcomes[Stage.BUILD]
        # Before anything else: without it no package is made.
        key_of(self.key_for, Purpose.PROVENANCE)
        finals = [await self._final(job, before["format"], before["package"])]
        if before["deb"] is not None:
            finals.append(await self._final(job, DEB, before["deb"]))
        subjects = [Subject(one.file["file_name"], one.file["sha256"]) for one in finals]
        attested = await attest(
            self.workshop,
            job,
            self.key_for,
            Purpose.PROVENANCE,
            lambda: statement(subjects, PROVENANCE, before["provenance"]),
        )
        return _done(before, finals, attested.sha256, [attested.report])

    async def _final(self, job: Job, kind: str, unsigned: Mapping[str, Any]) -> _Final:
        key = await self._origin(kind)
        if key is None:
            await self._present(unsigned)
            return _Final(dict(unsigned), _unsigned_report(kind), {})
        path = job.folder / f"unsigned-{kind}"
        await self.workshop.fetch(unsigned["sha256"], path, "unsigned package")
        final = job.folder / f"final-{kind}"
        signature, size = await self._signed(job, key, unsigned["sha256"], path, final)
        report, held = await self._verified(job, key, signature, final)
        kept = await self.workshop.keep(final)
        return _Final({**unsigned, "sha256": kept.sha256, "size": size}, report, held)

    async def _origin(self, kind: str) -> OriginKey | None:
        try:
            return await asyncio.to_thread(self.origin_for) if kind == DEB else None
        except SigningFailed as error:
            raise StageFailed(error.code, error.message) from None

    async def _present(self, unsigned: Mapping[str, Any]) -> None:
        sha256 = unsigned["sha256"]
        try:
            if await self.workshop.blobs.verify(sha256):
                return
        except BlobMissing:
            pass
        raise StageFailed(
            "BYTES_CHANGED",
            f"package: what BUILD stored under {sha256} is not there; start the pipeline again",
        )

    async def _signed(
        self, job: Job, key: OriginKey, sha256: str, unsigned: Path, final: Path
    ) -> tuple[bytes, int]:
        """Write the final bytes with the signature that stands, or with a new one that stands from now on."""
        epoch = given_of(job.pipeline).epoch
        async with self.database.reading() as connection:
            standing = await signatures.find_signature(connection, sha256, key.fingerprint)
        try:
            if standing is None:
                standing = await self._new(job, key, sha256, unsigned)
            _, size = await asyncio.to_thread(attach, unsigned, final, standing, epoch)
        except SigningFailed as error:
            raise StageFailed(error.code, error.message) from None
        return standing, size

    async def _new(self, job: Job, key: OriginKey, sha256: str, unsigned: Path) -> bytes:
        """Sign; returns the signature that stands from now on, another one where another worker was first."""
        signature = await asyncio.to_thread(detached, unsigned, key, job.folder)
        # Kept before the final bytes are: whoever runs again comes to the same ones.
        async with self.database.unit_of_work() as work:
            now = to_micros(self.clock.now())
            return await signatures.keep_signature(work, sha256, key.fingerprint, signature, now)

    async def _verified(
        self, job: Job, key: OriginKey, signature: bytes, final: Path
    ) -> tuple[Mapping[str, str], Mapping[str, str]]:
        arguments: dict[str, isolation.JsonValue] = {
            "certificate": key.certificate,
            "debsig_keyring": key.debsig_keyring.hex(),
        }
        ran = await self.workshop.run(job, isolation.Job("verify_deb", arguments, {"package.deb": final}))
        told = {name: ran.value.get(name) for name in ("state", "tool", "reason")}
        try:
            state = SignatureState(told["state"])
        except ValueError:
            raise bad_result("verify_deb", "a state that is not known") from None
        tool, reason = printable(str(told["tool"])[:200]), printable(str(told["reason"])[:1_000])
        if state not in _REPORTED:
            raise StageFailed(
                "SIGNATURE_REFUSED", f"the package's OpenPGP signature: {tool or 'nobody'}: {reason}"
            )
        said = described(signature)
        detail = f"by subkey {said.signing_key} at {said.created}, SHA512"
        report = {
            "kind": "openpgp",
            "key_id": key.fingerprint,
            "state": _REPORTED[state],
            "verified_by": tool,
            "detail": f"{detail}; {reason}" if reason else detail,
        }
        job.say("info" if tool else "warning", f"OpenPGP signature {report['state']}: {tool or reason}")
        return report, ran.isolation


def _unsigned_report(kind: str) -> dict[str, str]:
    reason = not_applicable(kind).reason
    if kind == DEB:
        reason = "this server has no OpenPGP key for .debs; its DSSE envelope is what counts"
    return {"kind": "openpgp", "key_id": "", "state": "ABSENT", "verified_by": "", "detail": reason}


def _done(
    before: Mapping[str, Any], finals: list[_Final], provenance: str, reports: list[Mapping[str, str]]
) -> StageDone:
    package, *more = finals
    outcome = {
        "package": package.file,
        "deb": more[0].file if more else None,
        "attestations": {"provenance": provenance},
        "signatures": [*reports, *(one.report for one in finals)],
    }
    outputs = {"package": package.file["sha256"], "provenance": provenance}
    if more:
        outputs["deb"] = more[0].file["sha256"]
    return StageDone(
        outcome,
        tools={"fleetwright": own_version(), "pysequoia": version("pysequoia")},
        inputs={"unsigned package": before["package"]["sha256"]},
        outputs=outputs,
        isolation=together(*(one.isolation for one in finals)),
        facts={"package": package.file["sha256"]},
    )
