"""The room's door: enrolment, renewal, admission and revocation of agents.

``tokens`` and ``administrators`` are the use cases of administrators.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from controlplane.agents.service import AgentsService, HostRecord, Registration
from controlplane.callers import Caller, IdentityKind, write_spiffe_id
from controlplane.clock import Clock, to_micros
from controlplane.errors import Unauthenticated, invalid
from controlplane.identity import csr, rules
from controlplane.identity.administrators import Administrators
from controlplane.identity.csr import CheckedRequest
from controlplane.identity.operations import AdoptCertificate, UseCertificate, refusal
from controlplane.identity.records import (
    CertificateRecord,
    Enrolled,
    Issued,
    Revocation,
)
from controlplane.identity.rules import Admission, CertificateState, TokenState
from controlplane.identity.store import certificates, denials, tokens
from controlplane.identity.tokens import EnrollmentTokens, token_refusal
from controlplane.storage.database import Database
from controlplane.storage.gathered_reads import GatheredReads
from controlplane.storage.slices import Slice, delete_in_slices
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.storage.writer import Writer
from controlplane.trust.adoption import Adoption
from controlplane.trust.authority import CertificateAuthority

__all__ = ["Enrolled", "IdentityPolicy", "IdentityService", "Issued", "Revocation"]

DENIALS = "denials"
"""The wake-up that says that a certificate was revoked."""

FORGET_STEP = 2_000
"""Agents' certificates that one transaction deletes: some megabytes."""

KEPT_AFTER_END = timedelta(days=30)
"""How long the row of a certificate outlives it: to answer which key an agent had when."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class IdentityPolicy:
    """What an operator sets: the life of agents' certificates, and where agents are to connect.

    ``adoption`` is the leave that ``fleetwright restore`` gave, if it did.
    """

    agent_certificate_life: timedelta = timedelta(hours=24)
    agent_addresses: tuple[str, ...] = ()
    adoption: Adoption | None = None


class IdentityService:
    """Use cases around identities.

    ``after_revoke`` is called once a revocation is durable, to close live streams; it is
    wired by ``bootstrap`` and must not block, and so is ``trusted_root``, which gives the root by which
    agents judge packages, empty for none. ``page_secret`` signs page tokens.
    ``authority`` is the agents' root, ``operators`` that of administrators. ``load`` must have run
    before ``is_denied`` is asked.
    """

    def __init__(
        self,
        database: Database,
        writer: Writer,
        agents: AgentsService,
        authority: CertificateAuthority,
        operators: CertificateAuthority,
        clock: Clock,
        policy: IdentityPolicy,
        page_secret: bytes,
    ) -> None:
        self._database = database
        self._writer = writer
        self._agents = agents
        self._authority = authority
        self._clock = clock
        self._policy = policy
        self.tokens = EnrollmentTokens(database, clock, authority.digest, page_secret)
        self._standings = GatheredReads(database, certificates.standings)
        self._denied: set[str] = set()
        self._learned = 0
        self.administrators = Administrators(database, clock, operators, self._denied, page_secret)
        self.after_revoke: list[Callable[[Revocation], None]] = []
        self.trusted_root: Callable[[], Awaitable[bytes]] = _no_root

    async def enroll(self, join_token: str, agent_id: str, request: bytes, host: HostRecord) -> Enrolled:
        """Register an agent and issue its first certificate, or do nothing at all.

        The same token, agent and key again give the same certificate and use the token once,
        while that certificate is the agent's current one. An agent that is replaced loses its
        former certificates. Raises, in this order: ``Unauthenticated`` TOKEN_UNKNOWN,
        TOKEN_REVOKED, TOKEN_EXPIRED, ``ResourceExhausted`` TOKEN_EXHAUSTED; ``InvalidArgument``
        as ``csr.check``; ``AlreadyExists`` AGENT_ALREADY_ENROLLED.
        """
        now = self._clock.now()
        joined = rules.read_join_token(join_token)
        # Asked of a reader first: who has no token must not be able to queue for the one writer.
        async with self._database.reading() as connection:
            await self.tokens.judge(connection, joined, agent_id, now)
        checked = csr.check(request, agent_id, self._spiffe_id(agent_id))
        root = await self.trusted_root()
        async with self._database.unit_of_work() as work:
            token = await self.tokens.judge(work.connection, joined, agent_id, now)
            given = await tokens.given(work.connection, token.token_id, agent_id, checked.key_digest)
            if given is not None and _is_current(given, now):
                return self._enrolled(given, root)
            if not await tokens.take_use(work, token.token_id):
                raise token_refusal(TokenState.EXHAUSTED)
            await self._agents.register(
                work, Registration(agent_id, token.labels, host), replace=token.allow_reenrollment, now=now
            )
            await self._revoke(work, agent_id, "the agent enrolled again", now)
            certificate = self._sign(agent_id, checked, CertificateState.CURRENT, now)
            await certificates.add(work, certificate)
            await tokens.remember_use(work, token.token_id, certificate)
        # Not "token": the log blanks what goes by that name.
        _log.info("agent enrolled", agent=agent_id, enrollment=token.token_id, serial=certificate.serial)
        return self._enrolled(certificate, root)

    async def renew(self, caller: Caller, request: bytes) -> Issued:
        """Issue the next certificate of the agent that calls, for a fresh key.

        It becomes the current one when it is first used. The same key again gets the same
        certificate; another key replaces a next certificate that was not used. Raises
        ``InvalidArgument`` as ``csr.check``, and where the key is the caller's own;
        ``Unauthenticated`` CERTIFICATE_REVOKED or CERTIFICATE_EXPIRED.
        """
        now, agent_id = self._clock.now(), caller.name
        checked = csr.check(request, agent_id, self._spiffe_id(agent_id))
        async with self._database.unit_of_work() as work:
            await self._shown(work, caller, checked, now)
            for following in await certificates.live(work.connection, agent_id):
                if following.state is not CertificateState.NEXT:
                    continue
                if following.key_digest == checked.key_digest and _is_young(following, now):
                    return self._issued(following)
                await certificates.supersede(work, [following.serial])
            certificate = self._sign(agent_id, checked, CertificateState.NEXT, now)
            await certificates.add(work, certificate)
        _log.info("certificate renewed", agent=agent_id, serial=certificate.serial, former=caller.serial)
        return self._issued(certificate)

    async def admit(self, caller: Caller) -> bool:
        """Check the certificate that a caller opens a stream with; returns whether this was its first use.

        The first use of an agent's next certificate makes it the current one and the former
        one superseded, durably, before this returns. Raises ``Unauthenticated``
        CERTIFICATE_REVOKED or CERTIFICATE_EXPIRED.
        """
        now = to_micros(self._clock.now())
        if caller.kind is not IdentityKind.AGENT:
            self._admit_administrator(caller, now)
            return False
        standing = await self._standings.find(caller.serial)
        if standing is None and self._may_adopt(caller, now):
            return await self._adopt(caller, now)
        verdict = rules.admission(caller.name, standing, now)
        if error := refusal(verdict, caller.name):
            raise error
        if verdict is Admission.ACCEPT:
            return False
        return await self._writer.submit(UseCertificate(caller.name, caller.serial, now))

    # --- revocation

    async def deny_agent(self, work: UnitOfWork, agent_id: str, reason: str, now: datetime) -> Revocation:
        """Revoke an agent's certificates in the caller's transaction.

        Once it is durable, ``is_denied`` knows them and ``after_revoke`` is called.
        """
        return await self._revoke(work, agent_id, reason, now)

    async def agent_deleted(self, work: UnitOfWork, agent_id: str, now: datetime) -> int:
        """Take part in the deletion of an agent: a hook for ``AgentsService.on_delete``.

        Returns 0, the number of tasks that it cancelled.
        """
        await self.deny_agent(work, agent_id, "the agent was deleted", now)
        return 0

    def is_denied(self, serial: str) -> bool:
        """Return whether a certificate was revoked before its time; asked at every call, from memory.

        Superseded certificates are not among them: they are refused by ``admit``.
        """
        return serial in self._denied

    async def load(self) -> None:
        """Read which certificates are known and which revoked; at the start, before anyone is let in."""
        await self.administrators.load()
        now = to_micros(self._clock.now())
        async with self._database.reading() as connection:
            self._denied.update(await certificates.revoked(connection, now))
            self._denied.update(await denials.denied(connection))

    async def learn_denials(self) -> None:
        """Learn which certificates were revoked through other processes since the last time."""
        now = to_micros(self._clock.now())
        async with self._database.reading() as connection:
            self._denied.update(await certificates.revoked_since(connection, self._learned, now))
            self._denied.update(await denials.denied(connection))
        self._learned = now

    async def sweep(self) -> int:
        """Forget certificates that ended ``KEPT_AFTER_END`` ago; returns how many. For a schedule."""
        before = to_micros(self._clock.now() - KEPT_AFTER_END)

        async def some(work: UnitOfWork) -> Slice:
            forgotten = await certificates.forget(work, before, FORGET_STEP)
            work.after_commit(lambda: self._denied.difference_update(forgotten))
            return Slice(len(forgotten), more=len(forgotten) == FORGET_STEP)

        agents = await delete_in_slices(self._database, some)
        async with self._database.unit_of_work() as work:
            forgotten = await denials.forget(work, before)
            administrators = await self.administrators.forget(work, before)
        self._denied.difference_update(forgotten)
        return agents + len(forgotten) + administrators

    # --- inside

    async def _shown(self, work: UnitOfWork, caller: Caller, checked: CheckedRequest, now: datetime) -> None:
        found = (await certificates.find(work.connection, [caller.serial])).get(caller.serial)
        standing = None if found is None else found.standing
        verdict = rules.admission(caller.name, standing, to_micros(now))
        if error := refusal(verdict, caller.name):
            raise error
        if found is not None and found.key_digest == checked.key_digest:
            raise invalid(
                "certificate_signing_request",
                "its key is the one of the certificate in use: make a fresh key for each renewal",
            )
        if verdict is Admission.PROMOTE:
            await certificates.promote(work, [caller.name])

    async def _revoke(self, work: UnitOfWork, agent_id: str, reason: str, now: datetime) -> Revocation:
        serials = await certificates.revoke_live(work, agent_id, reason, to_micros(now))
        revocation = Revocation(agent_id, tuple(serials), reason)
        if serials:
            work.after_commit(lambda: self._revoked(revocation))
        return revocation

    def _revoked(self, revocation: Revocation) -> None:
        self._denied.update(revocation.serials)
        _log.info("certificates revoked", agent=revocation.agent_id, why=revocation.reason)
        for action in self.after_revoke:
            action(revocation)

    def _may_adopt(self, caller: Caller, now: int) -> bool:
        leave = self._policy.adoption
        return leave is not None and rules.may_be_adopted(
            caller.not_before,
            restore_time=to_micros(leave.restore_time),
            until=to_micros(leave.until),
            now=now,
        )

    async def _adopt(self, caller: Caller, now: int) -> bool:
        operation = AdoptCertificate(caller.name, caller.serial, caller.not_before, caller.not_after, now)
        adopted: bool = await self._writer.submit(operation)
        if adopted:
            _log.warning("certificate adopted after a restore", agent=caller.name, serial=caller.serial)
        return adopted

    def _admit_administrator(self, caller: Caller, now: int) -> None:
        if self.is_denied(caller.serial):
            raise Unauthenticated(
                "CERTIFICATE_REVOKED", f"client certificate: the one of {caller.spiffe_id} is revoked"
            )
        if now > caller.not_after:
            raise Unauthenticated(
                "CERTIFICATE_EXPIRED", f"client certificate: the one of {caller.spiffe_id} is expired"
            )

    def _sign(
        self, agent_id: str, checked: CheckedRequest, state: CertificateState, now: datetime
    ) -> CertificateRecord:
        life = self._policy.agent_certificate_life
        leaf = self._authority.sign_client(checked.public_key, IdentityKind.AGENT.value, agent_id, life, now)
        return CertificateRecord(
            serial=leaf.serial,
            agent_id=agent_id,
            key_digest=checked.key_digest,
            state=state,
            not_before=to_micros(leaf.not_before),
            not_after=to_micros(leaf.not_after),
            issue_time=to_micros(now),
            der=leaf.der,
        )

    def _enrolled(self, certificate: CertificateRecord, root: bytes) -> Enrolled:
        spiffe_id = self._spiffe_id(certificate.agent_id)
        return Enrolled(spiffe_id, self._issued(certificate), self._policy.agent_addresses, root)

    def _issued(self, certificate: CertificateRecord) -> Issued:
        return Issued(
            chain=(certificate.der,),
            trust_bundle=(self._authority.certificate_der,),
            not_before=certificate.not_before,
            not_after=certificate.not_after,
            renew_after=rules.renew_after(certificate.issue_time, certificate.not_after),
        )

    def _spiffe_id(self, agent_id: str) -> str:
        return write_spiffe_id(self._authority.trust_domain, IdentityKind.AGENT, agent_id)


async def _no_root() -> bytes:
    return b""


def _is_current(certificate: CertificateRecord, now: datetime) -> bool:
    verdict = rules.admission(certificate.agent_id, certificate.standing, to_micros(now))
    return verdict is Admission.ACCEPT


def _is_young(certificate: CertificateRecord, now: datetime) -> bool:
    return to_micros(now) < rules.renew_after(certificate.issue_time, certificate.not_after)
