"""Exceptions from policy: asked for by one, approved by another, for one vulnerability of one package, for a
time.

What changes is in force with the commit: the package is marked in the same transaction, judged again at
once, and by the schedule where that could not be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

from controlplane.callers import Caller
from controlplane.clock import Clock, duration_micros, to_micros
from controlplane.errors import InvalidArgument, NotFound, PermissionDenied, invalid
from controlplane.filtering import BoundFilter
from controlplane.ids import new_id
from controlplane.packaging.policy.rules import same_person
from controlplane.packaging.store import exceptions as stored
from controlplane.packaging.store import packages
from controlplane.packaging.store.exceptions import ExceptionRecord
from controlplane.storage.database import Database
from controlplane.storage.unit_of_work import UnitOfWork

_ID_DIGITS = 32

Rejudge = Callable[[str], Awaitable[object]]
"""Judges a package again, by its SHA-256, and has its release follow: ``Rescanning.one``."""


class ExceptionsService:
    """Use cases around exceptions."""

    def __init__(self, database: Database, clock: Clock, rejudge: Rejudge) -> None:
        self._database = database
        self._clock = clock
        self._rejudge = rejudge

    async def create(
        self,
        caller: Caller,
        package: str,
        vulnerability: str,
        justification: str,
        valid_for: timedelta,
        request_id: str = "",
    ) -> ExceptionRecord:
        """Ask for an exception, which counts for nothing before somebody else approves it.

        The same ``request_id`` gives the same exception. Raises ``NotFound`` PACKAGE_UNKNOWN,
        ``InvalidArgument`` VALIDATION_FAILED and REQUEST_ID_REUSED.
        """
        _check(vulnerability, justification, request_id)
        now = to_micros(self._clock.now())
        asked = ExceptionRecord(
            exception_id=_id_of(caller, request_id) if request_id else new_id(now),
            package=package,
            vulnerability=vulnerability.strip(),
            justification=justification,
            requester=caller.spiffe_id,
            approver="",
            expire_time=now + duration_micros(valid_for),
            create_time=now,
        )
        async with self._database.unit_of_work() as work:
            if await packages.find(work.connection, package) is None:
                raise NotFound(
                    "PACKAGE_UNKNOWN", f"package: there is no packages/{package}; list them to see which are"
                )
            if await stored.insert_once(work, asked):
                return asked
            return _same_as_before(asked, await stored.find(work.connection, asked.exception_id), request_id)

    async def approve(self, caller: Caller, exception_id: str) -> ExceptionRecord:
        """Let an exception count; one that was approved stays as it is.

        Raises ``NotFound`` EXCEPTION_UNKNOWN, ``PermissionDenied`` APPROVER_IS_REQUESTER, and
        ``InvalidArgument`` VALIDATION_FAILED for one that was revoked or has expired.
        """
        now = to_micros(self._clock.now())
        async with self._database.unit_of_work() as work:
            found = await self._locked(work, exception_id)
            if same_person(caller.spiffe_id, found.requester):
                raise PermissionDenied(
                    "APPROVER_IS_REQUESTER",
                    f"name: exceptions/{exception_id} was asked for by {found.requester}; "
                    "somebody else must approve it",
                )
            _check_open(found, now)
            if found.approver:
                return found
            await stored.change(work, exception_id, approver=caller.spiffe_id, approve_time=now)
            await packages.mark(work, found.package)
        return await self._followed(found)

    async def revoke(self, caller: Caller, exception_id: str) -> ExceptionRecord:
        """End an exception, and judge again what stood on it; one that was revoked stays as it is.

        Raises ``NotFound`` EXCEPTION_UNKNOWN.
        """
        del caller  # Whoever may call may end one: that lets nothing pass.
        now = to_micros(self._clock.now())
        async with self._database.unit_of_work() as work:
            found = await self._locked(work, exception_id)
            if found.revoke_time is not None:
                return found
            await stored.change(work, exception_id, revoke_time=now)
            await packages.mark(work, found.package)
        return await self._followed(found)

    async def get(self, exception_id: str) -> ExceptionRecord:
        """Return an exception. Raises ``NotFound`` EXCEPTION_UNKNOWN."""
        found = await self._database.read(lambda connection: stored.find(connection, exception_id))
        if found is None:
            raise _unknown(exception_id)
        return found

    async def page(
        self, chosen: BoundFilter, before: tuple[int, str] | None, limit: int
    ) -> Sequence[ExceptionRecord]:
        """Return exceptions that match ``store.exceptions.FILTER``, newest first."""
        return await self._database.read(lambda connection: stored.page(connection, chosen, before, limit))

    async def count(self, chosen: BoundFilter) -> int:
        """Return how many exceptions match."""
        return await self._database.read(lambda connection: stored.count(connection, chosen))

    async def _locked(self, work: UnitOfWork, exception_id: str) -> ExceptionRecord:
        found = await stored.find(work.connection, exception_id, lock=True)
        if found is None:
            raise _unknown(exception_id)
        return found

    async def _followed(self, changed: ExceptionRecord) -> ExceptionRecord:
        # What goes wrong here is told in the log and done again by the schedule: the change itself stands.
        await self._rejudge(changed.package)
        return await self.get(changed.exception_id)


def _check(vulnerability: str, justification: str, request_id: str) -> None:
    for field, text in (
        ("vulnerability", vulnerability),
        ("justification", justification),
        ("request_id", request_id),
    ):
        # PostgreSQL keeps no NUL.
        if "\0" in text:
            raise invalid(field, "has a NUL character; leave it out")
    if not vulnerability.strip():
        raise invalid("vulnerability", "is empty; name an id of the vulnerability, or rule:<name of a rule>")


def _check_open(found: ExceptionRecord, now: int) -> None:
    why = "was revoked" if found.revoke_time is not None else "has expired"
    if found.revoke_time is not None or found.expire_time <= now:
        raise invalid("name", f"exceptions/{found.exception_id} {why}; ask for a new one")


def _id_of(caller: Caller, request_id: str) -> str:
    # The call is its own key: asked for again, it finds what it made, with no table of calls beside.
    content = repr((caller.spiffe_id, request_id)).encode()
    return hashlib.sha256(content).hexdigest()[:_ID_DIGITS]


def _same_as_before(
    asked: ExceptionRecord, known: ExceptionRecord | None, request_id: str
) -> ExceptionRecord:
    if known is not None and _content(known) == _content(asked):
        return known
    raise InvalidArgument(
        "REQUEST_ID_REUSED",
        f"request_id: {request_id!r} was used for another content; use a new one for each request",
    )


def _content(one: ExceptionRecord) -> tuple[object, ...]:
    life = one.expire_time - one.create_time
    return one.package, one.vulnerability, one.justification, one.requester, life


def _unknown(exception_id: str) -> NotFound:
    return NotFound(
        "EXCEPTION_UNKNOWN", f"name: there is no exceptions/{exception_id}; list them to see which there are"
    )
