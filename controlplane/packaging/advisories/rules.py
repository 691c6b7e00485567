"""When an import may come into force, and when what is in force may be scanned with.

An import is of one ecosystem. It carries how far it knows, the newest instant of its records, and a digest
over them. Invariants:

* What is in force never goes back: not in how far it knows, and not in what it knows, but for the few records
  that a source deletes. Only an operator who says so may let it.
* No import claims to know of times that have not come: it would hold up every honest one after it.
* A scan over advisories that are missing, empty, damaged, stale or rolled back is an error. None of these is
  ever "no findings".

Instants are microseconds since 1970, UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TOLERANCE = 86_400_000_000
"""How far ahead of our clock an instant may be, one day: clocks differ, by time zones at the worst."""

LOSS_IN_EACH = 100
"""One record in so many may vanish, or go back, from an import to the next.

A source withdraws a record by marking it, and the export keeps it. Ids that it deletes or renames are a few
in thousands; an export that was cut, or another one, lacks far more than one in a hundred. Of fewer than a
hundred records none may go.
"""

_NAMED = 5
"""Ids that an error names."""


class AdvisoryDataError(Exception):
    """The advisories cannot be used; ``reason`` says in one word why, the text what to do."""

    reason = "UNUSABLE"


class MissingError(AdvisoryDataError):
    """No advisories are in force."""

    reason = "MISSING"


class EmptyError(AdvisoryDataError):
    """There are no records, or none that names a package."""

    reason = "EMPTY"


class CorruptError(AdvisoryDataError):
    """What is there is not what was imported, or cannot be read."""

    reason = "CORRUPT"


class StaleError(AdvisoryDataError):
    """The advisories are older than they may be."""

    reason = "STALE"


class RolledBackError(AdvisoryDataError):
    """The advisories know less, or less far, than others that were in force before."""

    reason = "ROLLED_BACK"


class FutureError(AdvisoryDataError):
    """Records carry instants that have not come."""

    reason = "FUTURE"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an import."""

    ecosystem: str
    digest: str
    records: int
    entries: int
    """Entries of packages."""
    newest: int
    """The newest instant of its records."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What an import lacks of the one in force: records that were not withdrawn, by id."""

    vanished: Sequence[str] = ()
    gone_back: Sequence[str] = ()
    """Records that carry an older instant than they did."""


def instant(modified: int, published: int | None, withdrawn: int | None = None) -> int:
    """Return how far one record knows: the newest instant that it carries, 0 where it carries none.

    Go's database writes the year 1 into ``modified`` and ``published`` of what it keeps in its repository.
    """
    return max(modified, published or 0, withdrawn or 0, 0)


def allowed_loss(records: int) -> int:
    """Return how many of the records in force may be missing from the next import."""
    return records // LOSS_IN_EACH


def check_content(new: Facts, now: int) -> None:
    """Raise for an import that by itself cannot come into force: ``EmptyError``, ``FutureError``."""
    if not new.records:
        raise EmptyError(
            f"{new.ecosystem}: the export has no records; give the whole export of the ecosystem"
        )
    if not new.entries:
        raise EmptyError(
            f"{new.ecosystem}: none of the {new.records} records names a package of this ecosystem; "
            "say which ecosystem the export is of"
        )
    if new.newest > now + TOLERANCE:
        raise FutureError(
            f"{new.ecosystem}: a record carries an instant that has not come; set this machine's clock, or "
            "get the export anew"
        )


def check_progress(new: Facts, standing: Facts, newest_ever: int, loss: Loss) -> None:
    """Raise ``RolledBackError`` for an import that would take knowledge back.

    ``newest_ever`` is the newest instant that any import in force has known.
    """
    if new.newest < max(standing.newest, newest_ever):
        raise RolledBackError(
            f"{new.ecosystem}: the export knows less far than the one in force; get the newest export, or "
            "say that the rollback is meant"
        )
    lost = [*loss.vanished, *loss.gone_back]
    if len(lost) > allowed_loss(standing.records):
        named = ", ".join(sorted(lost)[:_NAMED])
        raise RolledBackError(
            f"{new.ecosystem}: {len(loss.vanished)} of {standing.records} records vanished without being "
            f"withdrawn and {len(loss.gone_back)} went back ({named}{', …' if len(lost) > _NAMED else ''}); "
            f"{allowed_loss(standing.records)} may; get the whole export, or say that the rollback is meant"
        )


def check_usable(found: Facts, counted: tuple[int, int], newest_ever: int, now: int, max_age: int) -> int:
    """Return the age of the advisories of an ecosystem, in microseconds, for a scan that may use them.

    ``counted`` are the records and entries that are there now. Raises ``EmptyError``, ``CorruptError``,
    ``RolledBackError``, ``FutureError`` and ``StaleError``.
    """
    if not found.records or not found.entries:
        raise EmptyError(f"{found.ecosystem}: the advisories in force are empty; import them again")
    if counted != (found.records, found.entries):
        raise CorruptError(
            f"{found.ecosystem}: {counted[0]} records and {counted[1]} entries are there of "
            f"{found.records} and {found.entries} that were imported; import them again"
        )
    if found.newest < newest_ever:
        raise RolledBackError(
            f"{found.ecosystem}: the advisories in force know less far than others did before; import the "
            "newest export"
        )
    age = now - found.newest
    if age < -TOLERANCE:
        raise FutureError(
            f"{found.ecosystem}: the advisories are newer than this machine's clock; set the clock"
        )
    if age > max_age:
        raise StaleError(
            f"{found.ecosystem}: the newest advisory is {_days(age)} days old, and {_days(max_age)} are "
            "allowed; import the newest export"
        )
    return max(age, 0)


def _days(micros: int) -> str:
    return f"{micros / 86_400_000_000:.1f}"
