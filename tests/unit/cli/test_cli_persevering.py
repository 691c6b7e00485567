"""Transfers that are cut off: what is tried again, when, and when it is given up."""

from __future__ import annotations

import random
from typing import Any

import grpc
import pytest
from fleetwright.errors import ERROR_DOMAIN
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from controlplane.cli import persevering
from controlplane.cli.persevering import TRIES, Perseverance


class Cut(grpc.RpcError):
    """What a call raises."""

    def __init__(self, code: grpc.StatusCode, reason: str = "", retry_after: int = 0) -> None:
        self._code, self._reason, self._retry_after = code, reason, retry_after

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "busy"

    def trailing_metadata(self) -> Any:
        details: list[Any] = []
        if self._reason:
            details.append(error_details_pb2.ErrorInfo(reason=self._reason, domain=ERROR_DOMAIN))
        if self._retry_after:
            delay = duration_pb2.Duration(seconds=self._retry_after)
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        status = status_pb2.Status()
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        return (("grpc-status-details-bin", status.SerializeToString()),)


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def perseverance(waits: list[float], notes: list[str], monkeypatch: pytest.MonkeyPatch) -> Perseverance:
    monkeypatch.setattr(random, "random", lambda: 1.0)
    return Perseverance(notes.append, waits.append)


@pytest.mark.parametrize(
    "cut",
    [
        Cut(grpc.StatusCode.UNAVAILABLE),
        Cut(grpc.StatusCode.DEADLINE_EXCEEDED),
        Cut(grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED"),
        Cut(grpc.StatusCode.UNKNOWN),
        Cut(grpc.StatusCode.INTERNAL),
    ],
)
def test_a_transfer_that_was_torn_off_is_gone_on_with(perseverance: Perseverance, cut: Cut) -> None:
    perseverance.after(cut)


@pytest.mark.parametrize(
    "refusal",
    [
        Cut(grpc.StatusCode.PERMISSION_DENIED, "ROLE_NOT_ALLOWED"),
        Cut(grpc.StatusCode.NOT_FOUND, "PACKAGE_UNKNOWN"),
        Cut(grpc.StatusCode.INVALID_ARGUMENT),
        Cut(grpc.StatusCode.UNKNOWN, "INTERNAL"),
        Cut(grpc.StatusCode.UNIMPLEMENTED),
    ],
)
def test_what_a_repetition_does_not_mend_is_not_repeated(
    perseverance: Perseverance, waits: list[float], refusal: Cut
) -> None:
    with pytest.raises(Cut):
        perseverance.after(refusal)
    assert waits == []


def test_it_waits_longer_each_time_and_gives_up_at_last(
    perseverance: Perseverance, waits: list[float], notes: list[str]
) -> None:
    cut = Cut(grpc.StatusCode.UNAVAILABLE)
    for _ in range(TRIES - 1):
        perseverance.after(cut)
    with pytest.raises(Cut):
        perseverance.after(cut)
    assert waits == [1, 2, 4, 8, 15, 15, 15]
    assert notes[0] == "cut off (the server went away, or cannot be reached); going on in 1.0 s"


def test_a_transfer_that_gets_on_has_all_its_tries_again(
    perseverance: Perseverance, waits: list[float]
) -> None:
    for position in range(3 * TRIES):
        perseverance.after(Cut(grpc.StatusCode.UNAVAILABLE))
        perseverance.reached(position + 1)
    assert waits == [1] * (3 * TRIES)


def test_a_transfer_that_only_begins_again_has_not_got_on(perseverance: Perseverance) -> None:
    perseverance.reached(100)
    for _ in range(TRIES - 1):
        perseverance.after(Cut(grpc.StatusCode.UNAVAILABLE))
        perseverance.reached(100)
    with pytest.raises(Cut):
        perseverance.after(Cut(grpc.StatusCode.UNAVAILABLE))


def test_a_server_that_says_when_to_come_is_obeyed(
    perseverance: Perseverance, waits: list[float], notes: list[str]
) -> None:
    perseverance.after(Cut(grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", retry_after=40))
    assert waits == [40]
    assert notes == ["cut off (busy); going on in 40.0 s"]


def test_waits_are_spread_so_that_not_all_come_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(random, "random", lambda: 0.0)
    Perseverance(lambda text: None, waits.append).after(Cut(grpc.StatusCode.UNAVAILABLE))
    assert waits == [persevering.FIRST_WAIT.total_seconds() / 2]
