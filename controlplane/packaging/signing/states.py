"""What is true of a package's own signature."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any


class SignatureState(Enum):
    """The states of a signature that is part of a package's format."""

    SIGNED_VERIFIED = "SIGNED_VERIFIED"
    """Another implementation than the one that signed has found it good, with our key."""
    SIGNED_UNVERIFIED = "SIGNED_UNVERIFIED"
    """It was made, and no other implementation is here to look at it."""
    NOT_APPLICABLE = "NOT_APPLICABLE"
    """The format has no signature of its own."""
    FAILED = "FAILED"
    """Another implementation was asked and did not find it good."""


@dataclass(frozen=True, slots=True)
class Verification:
    """A state, who found it, and why it is no better."""

    state: SignatureState
    tool: str = ""
    """Name and version of the program that verified; empty where none did."""
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as an object of JSON."""
        return {**asdict(self), "state": self.state.value}


def not_applicable(kind: str) -> Verification:
    """Return the state of a package in a format without a signature of its own."""
    reason = f"a package in the format {kind!r} has no signature of its own; its DSSE envelope is what counts"
    return Verification(SignatureState.NOT_APPLICABLE, reason=reason)


class SigningFailed(Exception):
    """Nothing was signed. ``code`` is for programs; the message names the file and the remedy."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
