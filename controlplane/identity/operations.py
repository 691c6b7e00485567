"""What agents' streams change of their certificates, as operations of the group-commit writer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from controlplane.agents.service import AgentsService
from controlplane.errors import ServiceError, Unauthenticated
from controlplane.identity.records import CertificateRecord
from controlplane.identity.rules import Admission, CertificateState, admission
from controlplane.identity.store import certificates
from controlplane.storage.unit_of_work import UnitOfWork
from controlplane.storage.writer import Writer


@dataclass(frozen=True, slots=True)
class UseCertificate:
    """An agent shows its NEXT certificate for the first time; its outcome is whether that was so.

    False where another stream of the same agent was faster. Refused as ``refusal`` says.
    ``now`` is in microseconds.
    """

    agent_id: str
    serial: str
    now: int

    @property
    def key(self) -> str:
        """What it is about: the agent."""
        return self.agent_id


@dataclass(frozen=True, slots=True)
class AdoptCertificate:
    """An agent shows a certificate that was issued after the backup which was restored.

    Its outcome is whether it was taken over now; False where another stream of the same
    agent was faster. Refused where no such agent is enrolled, or a younger certificate of it
    is known: of several that were issued since, the newest that is shown wins. Times are in
    microseconds.
    """

    agent_id: str
    serial: str
    not_before: int
    not_after: int
    now: int

    @property
    def key(self) -> str:
        """What it is about: the agent."""
        return self.agent_id


def register_operations(writer: Writer, agents: AgentsService) -> None:
    """Let ``writer`` apply this room's operations; ``agents`` knows who is enrolled."""
    writer.register(UseCertificate, _use)
    writer.register(AdoptCertificate, partial(_adopt, agents))


def refusal(verdict: Admission, agent_id: str) -> ServiceError | None:
    """Return the error for a certificate that lets no one in, None for one that does."""
    if verdict is Admission.EXPIRED:
        return Unauthenticated(
            "CERTIFICATE_EXPIRED",
            f"client certificate: the one of agent {agent_id!r} is expired or not valid yet; "
            "compare the clocks, or enrol again",
        )
    if verdict is Admission.REVOKED:
        return Unauthenticated(
            "CERTIFICATE_REVOKED",
            f"client certificate: the one of agent {agent_id!r} is revoked, replaced or unknown; "
            "use the latest one, or enrol again",
        )
    return None


async def _use(work: UnitOfWork, operations: Sequence[UseCertificate]) -> Sequence[bool | ServiceError]:
    found = await certificates.standings(work.connection, [operation.serial for operation in operations])
    outcomes: list[bool | ServiceError] = []
    promoted = []
    for operation in operations:
        verdict = admission(operation.agent_id, found.get(operation.serial), operation.now)
        if verdict is Admission.PROMOTE:
            promoted.append(operation.agent_id)
        outcomes.append(refusal(verdict, operation.agent_id) or verdict is Admission.PROMOTE)
    if promoted:
        await certificates.promote(work, promoted)
    return outcomes


async def _adopt(
    agents: AgentsService, work: UnitOfWork, operations: Sequence[AdoptCertificate]
) -> Sequence[bool | ServiceError]:
    agent_ids = {operation.agent_id for operation in operations}
    enrolled = await agents.existing_ids(work.connection, agent_ids)
    youngest = await certificates.newest(work.connection, agent_ids)
    known = await certificates.standings(work.connection, [operation.serial for operation in operations])
    outcomes: list[bool | ServiceError] = []
    adopted: dict[str, CertificateRecord] = {}
    for operation in operations:
        agent_id, serial = operation.agent_id, operation.serial
        standing = known.get(serial)
        fits = agent_id in enrolled and youngest.get(agent_id, 0) <= operation.not_before
        verdict = (
            Admission.ACCEPT if standing is None and fits else admission(agent_id, standing, operation.now)
        )
        error = refusal(verdict, agent_id)
        outcomes.append(error or standing is None)
        if error is None and standing is None:
            for former in [one for one in adopted.values() if one.agent_id == agent_id]:
                adopted[former.serial] = replace(former, state=CertificateState.SUPERSEDED)
            adopted[serial] = _adopted(operation)
            known[serial], youngest[agent_id] = adopted[serial].standing, operation.not_before
    if adopted:
        await certificates.adopt(work, list(adopted.values()))
    return outcomes


def _adopted(operation: AdoptCertificate) -> CertificateRecord:
    # Key and content are of use for answering an enrolment or a renewal again: those are lost.
    return CertificateRecord(
        serial=operation.serial,
        agent_id=operation.agent_id,
        key_digest=b"",
        state=CertificateState.CURRENT,
        not_before=operation.not_before,
        not_after=operation.not_after,
        issue_time=operation.not_before,
        der=b"",
    )
