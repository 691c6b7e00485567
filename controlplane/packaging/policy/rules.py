"""What becomes of a package when rules object to it and people have made exceptions.

Invariants:

* PASS only where no rule objects. EXCEPTION only where every objection is lifted by an exception that
  counts. All else is FAIL: where nobody has decided on what is undecided, the answer is no.
* An exception counts for one package (by digest), one vulnerability, until it expires, and if somebody else
  than its requester approved it. One that does not count changes nothing.
* The same arguments give the same judgement, in whatever order they stand; judging again later is the same
  function with a later ``now``, and then exceptions can only have ceased to count.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from enum import Enum


class Outcome(Enum):
    """What rules say of a package before exceptions are looked at."""

    PASS = "PASS"  # noqa: S105 - a decision, and no password
    FAIL = "FAIL"
    UNDECIDED = "UNDECIDED"
    """A rule cannot say, and somebody has to."""


class Decision(Enum):
    """What holds in the end."""

    PASS = "PASS"  # noqa: S105 - a decision, and no password
    FAIL = "FAIL"
    EXCEPTION = "EXCEPTION"
    """It would not pass, and somebody has answered for it."""


class Refusal(Enum):
    """Why an exception does not count."""

    OTHER_PACKAGE = "it is for a package with another digest"
    OTHER_VULNERABILITY = "it is for a vulnerability that no rule objects to"
    NOT_EXCUSABLE = "the rule allows no exceptions"
    NOT_APPROVED = "nobody has approved it"
    REQUESTER_UNKNOWN = "it does not say who requested it, so that nobody can be told from them"
    OWN_REQUEST = "its requester approved it"
    REVOKED = "it was revoked"
    EXPIRED = "it has expired"


@dataclass(frozen=True, slots=True)
class Objection:
    """A rule's word against a package."""

    rule: str
    outcome: Outcome
    """FAIL or UNDECIDED."""
    vulnerabilities: Sequence[str]
    """Ids by which exceptions may name it, the leading one first; of the whole package ``rule_subject``."""
    excusable: bool = True
    about: str = ""
    """The component that it is about, as a purl; empty for the package as a whole."""


@dataclass(frozen=True, slots=True)
class PolicyException:
    """Somebody's leave for one vulnerability of one package. Instants are microseconds since 1970, UTC."""

    exception_id: str
    package_sha256: str
    vulnerability: str
    """An id of the vulnerability, or ``rule_subject`` of a rule about the package as a whole."""
    requester: str
    approver: str
    """Empty while nobody has approved."""
    expires: int
    """It counts before this instant."""
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class Ruling:
    """What became of an objection: ``exception_id`` is what lifted it, or empty."""

    objection: Objection
    exception_id: str


@dataclass(frozen=True, slots=True)
class Weighing:
    """What became of an exception: ``refusal`` is None where it lifts an objection."""

    exception: PolicyException
    refusal: Refusal | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """A decision and how it came about."""

    decision: Decision
    outcome: Outcome
    """Before exceptions."""
    rulings: Sequence[Ruling]
    """Sorted by rule, vulnerability and component."""
    weighings: Sequence[Weighing]
    """Sorted by the id of the exception."""


def rule_subject(rule: str) -> str:
    """Return what an exception names, as if it were a vulnerability, where a rule objects to the package."""
    return f"rule:{rule}"


def combined(outcomes: Iterable[Outcome]) -> Outcome:
    """Return the worst of outcomes: FAIL before UNDECIDED before PASS; PASS of none."""
    found = set(outcomes)
    return next((worst for worst in (Outcome.FAIL, Outcome.UNDECIDED) if worst in found), Outcome.PASS)


def judge(
    package_sha256: str, objections: Iterable[Objection], exceptions: Iterable[PolicyException], now: int
) -> Judgement:
    """Return what becomes of the package with this digest at ``now``."""
    against = sorted(objections, key=_place_of_objection)
    known = sorted(exceptions, key=astuple)
    standing = [one for one in known if flaw(one, package_sha256, now) is None]
    rulings = tuple(Ruling(one, _lifted_by(one, standing)) for one in against)
    return Judgement(
        decision=_decision(rulings),
        outcome=combined(one.outcome for one in against),
        rulings=rulings,
        weighings=tuple(Weighing(one, _refusal(one, against, package_sha256, now)) for one in known),
    )


def _place_of_objection(one: Objection) -> tuple[object, ...]:
    return one.rule, tuple(one.vulnerabilities), one.about, one.outcome.value, one.excusable


def _decision(rulings: Sequence[Ruling]) -> Decision:
    if not rulings:
        return Decision.PASS
    return Decision.EXCEPTION if all(one.exception_id for one in rulings) else Decision.FAIL


def _lifted_by(objection: Objection, standing: Sequence[PolicyException]) -> str:
    if not objection.excusable:
        return ""
    names = set(objection.vulnerabilities)
    return next((one.exception_id for one in standing if one.vulnerability in names), "")


def flaw(exception: PolicyException, package_sha256: str, now: int) -> Refusal | None:
    """Return what is wrong with an exception by itself, or None."""
    checks = (
        (exception.package_sha256 != package_sha256, Refusal.OTHER_PACKAGE),
        (exception.revoked, Refusal.REVOKED),
        (not exception.approver.strip(), Refusal.NOT_APPROVED),
        (not exception.requester.strip(), Refusal.REQUESTER_UNKNOWN),
        (same_person(exception.approver, exception.requester), Refusal.OWN_REQUEST),
        (exception.expires <= now, Refusal.EXPIRED),
    )
    return next((refusal for holds, refusal in checks if holds), None)


def same_person(one: str, other: str) -> bool:
    """Whether two names are one person's, however they are written."""
    return one.strip().casefold() == other.strip().casefold()


def _refusal(
    exception: PolicyException, against: Sequence[Objection], package_sha256: str, now: int
) -> Refusal | None:
    if exception.package_sha256 != package_sha256:
        return Refusal.OTHER_PACKAGE
    named = [one for one in against if exception.vulnerability in one.vulnerabilities]
    if not named:
        return Refusal.OTHER_VULNERABILITY
    found = flaw(exception, package_sha256, now)
    if found is None and not any(one.excusable for one in named):
        return Refusal.NOT_EXCUSABLE
    return found
