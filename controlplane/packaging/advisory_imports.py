"""Exports of advisories on their way in, and what follows from them."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from controlplane.clock import Clock, duration_micros, to_micros
from controlplane.errors import FailedPrecondition, InvalidArgument, ServiceError, invalid
from controlplane.packaging.advisories.exports import ExportError
from controlplane.packaging.advisories.recognising import ecosystem_of
from controlplane.packaging.advisories.records import Standing
from controlplane.packaging.advisories.rules import AdvisoryDataError, RolledBackError
from controlplane.packaging.advisories.service import AdvisoriesService
from controlplane.packaging.advisories.versions import is_known

Rejudge = Callable[[], Awaitable[int]]
"""Scans and judges every package again; returns how many have another decision now."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What a caller announces of an export."""

    size: int
    sha256: str
    allow_older: bool = False
    ecosystem: str = ""
    exported: datetime | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one ecosystem, and whether it is older than is accepted here."""

    standing: Standing
    stale: bool


@dataclass(frozen=True, slots=True)
class Taken:
    """What an import brought."""

    ecosystems: Sequence[Known]
    changed_count: int


class AdvisoryImports:
    """Use cases of imports. ``scratch`` is a folder on a disk of this machine's own."""

    def __init__(
        self,
        advisories: AdvisoriesService,
        clock: Clock,
        scratch: Path,
        *,
        most_bytes: int,
        max_age: timedelta,
        rejudge: Rejudge,
    ) -> None:
        self._advisories = advisories
        self._clock = clock
        self._scratch = scratch
        self._most_bytes = most_bytes
        self._max_age = max_age
        self._rejudge = rejudge
        # Each takes a core or two for seconds.
        self._one_at_a_time = asyncio.Lock()

    async def take(self, opening: Opening, pieces: AsyncIterator[bytes]) -> Taken:
        """Import an export; then judge every package again.

        Raises ``InvalidArgument`` DIGEST_MISMATCH and ADVISORIES_MALFORMED, ``FailedPrecondition``
        ADVISORIES_ROLLED_BACK. What was in force before stays so then.
        """
        self._check(opening)
        with tempfile.TemporaryDirectory(dir=self._scratch, prefix="import-") as folder:
            archive = Path(folder) / "all.zip"
            await _receive(opening, pieces, archive)
            async with self._one_at_a_time:
                ecosystem = await self._import(opening, archive)
        changed = await self._rejudge()
        return Taken([one for one in await self.status() if one.standing.ecosystem == ecosystem], changed)

    def _check(self, opening: Opening) -> None:
        if opening.size > self._most_bytes:
            raise invalid(
                "open.size_bytes",
                f"{opening.size} is more than the {self._most_bytes} bytes that are taken here",
            )
        if opening.ecosystem and not is_known(opening.ecosystem):
            raise invalid(
                "open.ecosystem", f"{opening.ecosystem!r} has no rules of comparison here; leave it out"
            )

    async def _import(self, opening: Opening, archive: Path) -> str:
        try:
            ecosystem = opening.ecosystem or await ecosystem_of(archive)
            await self._advisories.import_path(
                archive, ecosystem=ecosystem, exported=opening.exported, accept_rollback=opening.allow_older
            )
        except (ExportError, AdvisoryDataError) as error:
            raise _refusal(error, archive) from None
        return ecosystem

    async def status(self) -> list[Known]:
        """Return what is known, by ecosystem."""
        now, oldest = to_micros(self._clock.now()), duration_micros(self._max_age)
        return [Known(one, now - one.newest_modified > oldest) for one in await self._advisories.status()]


async def _receive(opening: Opening, pieces: AsyncIterator[bytes], archive: Path) -> None:
    digest, received = hashlib.sha256(), 0
    with archive.open("xb") as file:
        async for piece in pieces:
            received += len(piece)
            if received > opening.size:
                raise _mismatch(f"more than the {opening.size} bytes came that were announced")
            digest.update(piece)
            await asyncio.to_thread(file.write, piece)
    if received != opening.size:
        raise _mismatch(f"{received} of the {opening.size} bytes came that were announced")
    if digest.hexdigest() != opening.sha256:
        raise _mismatch(f"the bytes that came have {digest.hexdigest()}, and {opening.sha256} was announced")


def _mismatch(what: str) -> InvalidArgument:
    return InvalidArgument("DIGEST_MISMATCH", f"data: {what}; nothing was imported: send the export again")


def _refusal(error: ExportError | AdvisoryDataError, archive: Path) -> ServiceError:
    """Return what to tell of an export that cannot be taken; callers know nothing of our folders."""
    said = str(error).replace(f"{archive.resolve()}: ", "").replace(f"{archive}: ", "")
    if isinstance(error, RolledBackError):
        return FailedPrecondition("ADVISORIES_ROLLED_BACK", said)
    return InvalidArgument("ADVISORIES_MALFORMED", said)
