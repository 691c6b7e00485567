"""What agents' streams change of their certificates, as operations of the group-commit writer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.errors import ServiceError, Unauthenticated
from controlplane.identity.rules import Admission, admission
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


def register_operations(writer: Writer) -> None:
    """Let ``writer`` apply this room's operations."""
    writer.register(UseCertificate, _use)


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
