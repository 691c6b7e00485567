"""Who is calling: the identity that a certificate proves."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class IdentityKind(Enum):
    """What an identity is for; the value is its segment in the SPIFFE id."""

    AGENT = "agent"
    OPERATOR = "operator"
    INTEGRATOR = "integrator"
    ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller, or the anonymous one of the enrolment listener.

    ``serial`` is the certificate's serial number in lower-case hexadecimal and
    ``not_after`` its end in microseconds since the Unix epoch.
    """

    kind: IdentityKind
    name: str
    spiffe_id: str
    serial: str
    not_after: int


ANONYMOUS = Caller(IdentityKind.ANONYMOUS, "", "", "", 0)
