"""Who is calling: the identity that a certificate proves, and how a SPIFFE id says it.

This is the one place that knows the form of a SPIFFE id: who issues certificates and who
reads them must not differ about it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

_NAME = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME_PATTERN = re.compile(_NAME)
_SPIFFE_ID = re.compile(rf"spiffe://([^/]*)/(agent|operator|integrator)/({_NAME})")


class IdentityKind(Enum):
    """What an identity is for; the value is its segment in the SPIFFE id."""

    AGENT = "agent"
    OPERATOR = "operator"
    INTEGRATOR = "integrator"
    ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller, or the anonymous one of the enrolment listener.

    ``serial`` is the certificate's serial number in lower-case hexadecimal, ``not_before``
    and ``not_after`` are its life in microseconds since the Unix epoch.
    """

    kind: IdentityKind
    name: str
    spiffe_id: str
    serial: str
    not_after: int
    not_before: int = 0


ANONYMOUS = Caller(IdentityKind.ANONYMOUS, "", "", "", 0)


def is_name(text: str) -> bool:
    """Return whether an agent, operator or integrator may have this name.

    1 to 63 lower-case letters, digits and inner hyphens, as in a DNS label.
    """
    return _NAME_PATTERN.fullmatch(text) is not None


def read_spiffe_id(uri: str, trust_domain: str) -> tuple[IdentityKind, str] | None:
    """Return the kind and the name that the URI SAN of a certificate says; None where it is not one of ours.

    Strings are compared as they stand: no case folding, no decoding, no normalising
    (SPIFFE-ID sections 2.1 and 2.2 leave nothing of that open to a valid id).
    """
    match = _SPIFFE_ID.fullmatch(uri)
    return (IdentityKind(match[2]), match[3]) if match and match[1] == trust_domain else None


def write_spiffe_id(trust_domain: str, kind: IdentityKind, name: str) -> str:
    """Return the SPIFFE id of an agent, operator or integrator; it has this one spelling."""
    return f"spiffe://{trust_domain}/{kind.value}/{name}"
