"""What stages share that have untrusted bytes read: fetching them, jobs in isolation, keeping what they left.

What a job answers comes from a process that read bytes that others made: shapes are checked here before
anything is believed, and a job whose answer cannot be is a failed stage.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from controlplane.packaging.blobs import BlobDamaged, BlobMissing, Blobs
from controlplane.packaging.isolation import records as isolation
from controlplane.packaging.isolation.logs import printable
from controlplane.packaging.isolation.records import (
    IsolationFailed,
    IsolationLimits,
    IsolationSettings,
    Outcome,
    unheld,
)
from controlplane.packaging.isolation.running import run as run_isolated
from controlplane.packaging.stages.stage import Job, StageFailed

GIBIBYTE = 1024 * isolation.MEBIBYTE
LIMITS = IsolationLimits(
    wall=timedelta(minutes=30),
    cpu=timedelta(minutes=20),
    # The largest artefact (4 GiB) beside all that it may unpack to (8 GiB), beside the package of that.
    file_bytes=9 * GIBIBYTE,
    scratch_bytes=24 * GIBIBYTE,
    scratch_files=250_000,
    open_files=256,
)
"""What one job of making a package may use."""

_NOT_HELD = "NOT HELD"
_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class Ran:
    """What a job answered, and which limits held."""

    value: Mapping[str, Any]
    isolation: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Kept:
    """A file that is in the store now."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where stages work: the store of bytes, how this machine isolates, and what one job may use."""

    blobs: Blobs
    settings: IsolationSettings
    limits: IsolationLimits = LIMITS

    async def fetch(self, sha256: str, path: Path, what: str) -> Path:
        """Write stored bytes to a new file, verified; ``what`` names them in the ``StageFailed``."""
        try:
            await self.blobs.fetch(sha256, path)
        except BlobMissing:
            raise StageFailed(
                "BYTES_MISSING", f"{what}: nothing is stored under {sha256}; upload the artefact again"
            ) from None
        except BlobDamaged as error:
            raise StageFailed(
                "BYTES_CHANGED", f"{what}: {error}; the store is damaged: upload the artefact again"
            ) from None
        return path

    async def run(self, job: Job, wanted: isolation.Job) -> Ran:
        """Have a job done in isolation. Raises ``StageFailed`` with the job's own code, or isolation's."""
        try:
            outcome = await run_isolated(
                wanted, self.limits, settings=self.settings, log=lambda line: job.say("info", line)
            )
        except IsolationFailed as failed:
            raise StageFailed(
                f"ISOLATION_{failed.kind.name}", f"{wanted.function}: {failed.message}"
            ) from None
        _say_usage(job, wanted.function, outcome)
        if outcome.error is not None:
            raise _failure(outcome.error)
        if not isinstance(outcome.value, dict):
            raise bad_result(wanted.function, "its answer is no object")
        return Ran(outcome.value, evidence(outcome.facts))

    async def keep(self, path: Path) -> Kept:
        """Store a file that is no link under its digest."""
        kept = await asyncio.to_thread(_measured, path)
        await self.blobs.put_file(path, kept.sha256)
        return kept

    async def keep_bytes(self, content: bytes, path: Path) -> Kept:
        """Store some bytes, by way of a new file."""
        await asyncio.to_thread(path.write_bytes, content)
        return await self.keep(path)


def bad_result(what: str, problem: str) -> StageFailed:
    """Return the failure for an answer of a job that cannot be."""
    return StageFailed("BAD_RESULT", f"{what}: {problem}; a job answered what it cannot have found")


def evidence(facts: tuple[isolation.Fact, ...]) -> dict[str, str]:
    """Return by name which limits held, for the report of a stage."""
    return {fact.name.value: f"{'held' if fact.held else _NOT_HELD}: {fact.detail}" for fact in facts}


def together(*evidences: Mapping[str, str]) -> dict[str, str]:
    """Return the evidence of several jobs as one: what did not hold in one of them did not hold."""
    found: dict[str, str] = {}
    for one in evidences:
        worse = {name: said for name, said in one.items() if name not in found or said.startswith(_NOT_HELD)}
        found |= worse
    return found


def number(value: Mapping[str, Any], name: str) -> int:
    """Return a number of a job's answer, at least 0."""
    found = value.get(name)
    if type(found) is not int or found < 0:
        raise bad_result(name, "no number")
    return found


def texts(value: Mapping[str, Any], name: str, most: int = 1_000) -> list[str]:
    """Return a list of texts of a job's answer, each made printable and cut to 1,000 characters."""
    found = value.get(name)
    if not isinstance(found, list) or len(found) > most or not all(isinstance(one, str) for one in found):
        raise bad_result(name, f"no list of at most {most} texts")
    return [printable(one[:1_000]) for one in found]


def named_texts(value: Mapping[str, Any], name: str) -> dict[str, str]:
    """Return an object of texts of a job's answer, made printable and cut likewise."""
    found = value.get(name)
    if (
        not isinstance(found, dict)
        or len(found) > 100
        or not all(isinstance(one, str) for one in found.values())
    ):
        raise bad_result(name, "no object of at most 100 texts")
    return {printable(key[:100]): printable(text[:1_000]) for key, text in found.items()}


async def read(path: Path, most: int) -> bytes:
    """Return what a job left in a file of at most ``most`` bytes."""
    return await asyncio.to_thread(_content, path, most)


def as_json(value: object) -> bytes:
    """Return JSON; the same value gives the same bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _failure(error: isolation.JobError) -> StageFailed:
    code = error.code if _CODE.fullmatch(error.code) else "UNEXPECTED"
    where = f"{error.member}: " if error.member else ""
    return StageFailed(code, printable(f"{where}{error.message}"))


def _say_usage(job: Job, function: str, outcome: Outcome) -> None:
    used = outcome.usage
    took = f"{used.wall.total_seconds():.1f} s, {used.cpu.total_seconds():.1f} s of processor time"
    job.say("info", f"{function}: {took}, {used.memory_bytes // isolation.MEBIBYTE} MiB of memory, isolated")
    for fact in unheld(outcome.facts):
        job.say("warning", f"isolation without {fact.name.value}: {fact.detail}")


def _measured(path: Path) -> Kept:
    _check_file(path)
    with path.open("rb") as file:
        return Kept(hashlib.file_digest(file, "sha256").hexdigest(), file.tell())


def _content(path: Path, most: int) -> bytes:
    _check_file(path)
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise bad_result(path.name, f"longer than {most} bytes")
    return content


def _check_file(path: Path) -> None:
    if path.is_symlink() or not path.is_file():
        raise bad_result(path.name, "the job did not leave it behind as a file")
