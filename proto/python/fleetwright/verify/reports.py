"""What a verification found: one line for each check, also after the first that failed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any


class Outcome(Enum):
    """What a check came to. Only OK lets a package be installed."""

    OK = "ok"
    MISSING = "missing"
    """The evidence is not there."""
    WRONG = "wrong"
    """The evidence is there and does not hold, or cannot be judged."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of a report."""

    name: str
    outcome: Outcome
    detail: str
    """What was found; where it is not OK, why, and what to do."""

    def __str__(self) -> str:
        return f"{self.name:<12} {self.outcome.value:<8} {self.detail}"


@dataclass(frozen=True, slots=True)
class Report:
    """All checks of one verification, in the order in which trust is passed on."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether everything that was asked for holds."""
        return bool(self.checks) and all(check.outcome is Outcome.OK for check in self.checks)

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that do not hold."""
        return tuple(check for check in self.checks if check.outcome is not Outcome.OK)

    def __getitem__(self, name: str) -> Check:
        """Return the check of a name. Raises ``KeyError``."""
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(name)

    def as_dict(self) -> dict[str, Any]:
        """Return the report for programs."""
        return {
            "ok": self.ok,
            "checks": [
                {"name": check.name, "outcome": check.outcome.value, "detail": check.detail}
                for check in self.checks
            ],
        }

    def __str__(self) -> str:
        return "\n".join(str(check) for check in self.checks)


def ok(name: str, detail: str) -> Check:
    """Return a check that holds."""
    return Check(name, Outcome.OK, detail)


def missing(name: str, detail: str) -> Check:
    """Return a check whose evidence is not there."""
    return Check(name, Outcome.MISSING, detail)


def wrong(name: str, reasons: str | Iterable[object]) -> Check:
    """Return a check that does not hold, with every reason."""
    texts = [reasons] if isinstance(reasons, str) else [str(reason) for reason in reasons]
    return Check(name, Outcome.WRONG, "; ".join(texts))
