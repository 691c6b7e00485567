"""Identities of operators and integrators: issued to those who ask with a key, listed, revoked."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import structlog

from controlplane.callers import Caller, IdentityKind, write_spiffe_id
from controlplane.clock import Clock, to_micros
from controlplane.errors import FailedPrecondition, NotFound, Unauthenticated
from controlplane.identity import csr, rules
from controlplane.identity.listing import NewestFirst
from controlplane.identity.records import IdentityPage, IdentityRecord, NewIdentity
from controlplane.identity.store import denials, identities
from controlplane.storage.database import Database
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.trust.authority import BACKDATE, CertificateAuthority
from controlplane.trust.setup import ADMIN_LIFE

_ADMINISTRATORS = (IdentityKind.OPERATOR, IdentityKind.INTEGRATOR)
_BACKDATE = BACKDATE // timedelta(microseconds=1)

_log = structlog.get_logger(__name__)


class Administrators:
    """Use cases around the identities of operators and integrators.

    ``authority`` is the operators' root. ``denied`` is the set of serial numbers that
    every call is held against: a revocation is in it once it is durable. Whoever has a
    certificate of this root may call, also one that was issued offline; ``seen`` notes
    those, and ``record`` writes them down. ``page_secret`` signs page tokens.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        authority: CertificateAuthority,
        denied: set[str],
        page_secret: bytes,
    ) -> None:
        self._database = database
        self._clock = clock
        self._authority = authority
        self._denied = denied
        self._listing = NewestFirst(
            database,
            "identities",
            page_secret,
            identities.page,
            lambda identity: (identity.create_time, identity.serial),
        )
        self._known: set[str] = set()
        self._unrecorded: dict[str, IdentityRecord] = {}
        self.after_revoke: list[Callable[[], None]] = []

    async def issue(
        self, caller: Caller, kind: IdentityKind, name: str, request: bytes, ttl: timedelta | None = None
    ) -> NewIdentity:
        """Sign the key of a request, for ``ADMIN_LIFE`` unless told otherwise.

        A name may have several certificates: the next one is issued before the former ends.
        The limits of ``name`` and ``ttl`` are the contract's, checked where the request comes in.
        Raises ``InvalidArgument`` as ``csr.check``; ``Unavailable`` where the root's time is over.
        """
        now = self._clock.now()
        checked = csr.check(request, name, self.spiffe_id(kind, name))
        leaf = self._authority.sign_client(checked.public_key, kind.value, name, ttl or ADMIN_LIFE, now)
        record = IdentityRecord(
            serial=leaf.serial,
            kind=kind,
            name=name,
            creator=caller.spiffe_id,
            create_time=to_micros(now),
            expire_time=to_micros(leaf.not_after),
        )
        async with self._database.unit_of_work() as work:
            await self._check_still_admitted(work, caller)
            await identities.add(work, [record])
            work.after_commit(lambda: self._known.add(record.serial))
        _log.info("identity issued", serial=record.serial, kind=kind.value, name=name, by=caller.spiffe_id)
        return NewIdentity(record, leaf.pem, self._authority.certificate_pem)

    async def list(self, *, page_size: int, page_token: str) -> IdentityPage:
        """Return a page of identities, newest first; ``page_size`` 0 is the default.

        Raises ``InvalidArgument`` PAGE_TOKEN_INVALID.
        """
        await self.record()
        return IdentityPage(*await self._listing.page(page_size, page_token))

    async def revoke(self, caller: Caller, serial: str) -> IdentityRecord:
        """Refuse a certificate from now on and return its identity; a second time changes nothing.

        Raises ``NotFound`` IDENTITY_UNKNOWN, and ``FailedPrecondition`` OPERATOR_LAST where the
        caller would lock everyone out.
        """
        now = to_micros(self._clock.now())
        async with self._database.unit_of_work() as work:
            await self._check_still_admitted(work, caller)
            await self._record(work)
            found = await identities.find(work.connection, serial)
            if found is None:
                raise NotFound(
                    "IDENTITY_UNKNOWN",
                    f"name: there is no identities/{serial}; list the identities to see which there are. One "
                    "that was issued offline is known from its first call on",
                )
            others = await identities.active_operators(work.connection, now, beside=serial)
            if rules.locks_everyone_out(serial, caller.serial, others):
                raise FailedPrecondition(
                    "OPERATOR_LAST",
                    f"name: identities/{serial} is your own, and no other operator may call: issue another "
                    "one first, and revoke this one with it",
                )
            await denials.deny(
                work,
                serial,
                not_after=found.expire_time,
                reason="revoked",
                creator=caller.spiffe_id,
                now=now,
            )
            work.after_commit(lambda: self._denied.add(serial))
            for action in self.after_revoke:
                work.after_commit(action)
            revoked = await identities.find(work.connection, serial)
        _log.info("identity revoked", serial=serial, name=found.name, by=caller.spiffe_id)
        return revoked or found

    # --- who was issued elsewhere

    def seen(self, caller: Caller) -> None:
        """Note who calls, where it is an administrator that is not known yet; asked at every call."""
        if caller.serial in self._known or caller.kind not in _ADMINISTRATORS:
            return
        self._known.add(caller.serial)
        self._unrecorded[caller.serial] = IdentityRecord(
            serial=caller.serial,
            kind=caller.kind,
            name=caller.name,
            creator="",
            create_time=caller.not_before + _BACKDATE,
            expire_time=caller.not_after,
        )

    async def record(self) -> int:
        """Write down who was seen for the first time; returns how many. For a schedule, and before a look."""
        number = len(self._unrecorded)
        if number:
            async with self._database.unit_of_work() as work:
                await self._record(work)
        return number

    async def load(self) -> None:
        """Read who is known; at the start, before anyone is let in."""
        async with self._database.reading() as connection:
            self._known.update(await identities.serials(connection))

    async def forget(self, work: UnitOfWork, before: int) -> int:
        """Forget identities whose time was over at ``before``; returns how many."""
        forgotten = await identities.forget(work, before)
        work.after_commit(lambda: self._known.difference_update(forgotten))
        return len(forgotten)

    def spiffe_id(self, kind: IdentityKind, name: str) -> str:
        """Return the SPIFFE id of an operator or integrator."""
        return write_spiffe_id(self._authority.trust_domain, kind, name)

    # --- inside

    async def _record(self, work: UnitOfWork) -> None:
        fresh = dict(self._unrecorded)
        if not fresh:
            return
        await identities.add(work, fresh.values())

        def recorded() -> None:
            for serial in fresh:
                self._unrecorded.pop(serial, None)

        work.after_commit(recorded)

    async def _check_still_admitted(self, work: UnitOfWork, caller: Caller) -> None:
        # Transactions wait for each other: the one before may have revoked who asks for this one.
        refused = await identities.wait_for_others(work, caller.serial)
        if refused or caller.serial in self._denied:
            raise Unauthenticated(
                "CERTIFICATE_REVOKED", f"client certificate: the one of {caller.spiffe_id} is revoked"
            )
