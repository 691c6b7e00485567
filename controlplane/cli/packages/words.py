"""The contract's values as people read and type them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import typer
from fleetwright.v1 import packaging_service_pb2, work_pb2

from controlplane.cli.values import enum_name

FINAL: Final = frozenset(
    number
    for name, number in packaging_service_pb2.PipelineState.items()
    if number >= packaging_service_pb2.PIPELINE_STATE_PASSED
)
"""States from which a pipeline goes nowhere by itself; the contract says that all from PASSED on are."""

RELEASED: Final = frozenset(
    {packaging_service_pb2.PIPELINE_STATE_PASSED, packaging_service_pb2.PIPELINE_STATE_EXCEPTED}
)
"""States whose package agents can have."""

STAGES: Final = tuple(number for number in packaging_service_pb2.Stage.values() if number)

SEVERITIES: Final = ("critical", "high", "medium", "low", "unknown")

_STYLES: Final = {
    "PASSED": "green",
    "PASS": "green",
    "SUCCEEDED": "green",
    "INSTALLED": "green",
    "APPROVED": "green",
    "EXCEPTED": "yellow",
    "EXCEPTION": "yellow",
    "CANCELLED": "yellow",
    "SKIPPED": "yellow",
    "ROLLED_BACK": "yellow",
    "EXPIRED": "yellow",
    "WAITING": "yellow",
    "STALE": "yellow",
    "RUNNING": "cyan",
    "DOWNLOADING": "cyan",
    "VERIFYING": "cyan",
    "INSTALLING": "cyan",
    "REFUSED": "red",
    "ERROR": "red",
    "FAIL": "red",
    "FAILED": "red",
    "REVOKED": "red",
    "critical": "red",
    "high": "red",
    "medium": "yellow",
    "unknown": "yellow",
}


def style(word: str) -> str:
    """Return the colour of a state, a decision or a severity."""
    return _STYLES.get(word, "")


def state_name(state: int) -> str:
    """Return the name of a pipeline's state, such as ``PASSED``."""
    return enum_name(packaging_service_pb2.PipelineState.DESCRIPTOR, state)


def stage_name(stage: int) -> str:
    """Return the name of a stage, such as ``SBOM``; empty for none."""
    return enum_name(packaging_service_pb2.Stage.DESCRIPTOR, stage) if stage else ""


def stage_state_name(state: int) -> str:
    """Return the name of a stage's state, such as ``SUCCEEDED``."""
    return enum_name(packaging_service_pb2.StageState.DESCRIPTOR, state)


def decision_name(decision: int) -> str:
    """Return policy's decision, such as ``PASS``; empty where there is none yet."""
    return enum_name(packaging_service_pb2.PolicyDecision.DESCRIPTOR, decision) if decision else ""


def status_name(status: int) -> str:
    """Return the name of a deployment's status, such as ``INSTALLED``."""
    return enum_name(work_pb2.DeploymentStatus.DESCRIPTOR, status)


def counts_words(counts: Any) -> str:
    """Return how many vulnerabilities there are, ``2 critical, 1 high``."""
    found = [f"{getattr(counts, name):,} {name}" for name in SEVERITIES if getattr(counts, name)]
    return ", ".join(found) or "none known"


def vulnerabilities_words(package: Any) -> str:
    """Return how many vulnerabilities a package has, and of what nobody knows any."""
    found = counts_words(package.vulnerabilities)
    return f"{found}; not covered: {', '.join(package.not_covered)}" if package.not_covered else found


def chosen(option: str, texts: Sequence[str] | None, enum: Any, prefix: str) -> str:
    """Return the names of values as a filter has them, ``(PASS OR FAIL)``; empty for none.

    Raises ``typer.BadParameter`` for one that there is not.
    """
    known = [name.removeprefix(prefix) for name, number in enum.items() if number]
    names = [text.upper().replace("-", "_").removeprefix(prefix) for text in texts or ()]
    for text, name in zip(texts or (), names, strict=True):
        if name not in known:
            raise typer.BadParameter(f"{option} {text!r}: choose one of {', '.join(known)}")
    return f"({' OR '.join(names)})" if names else ""
