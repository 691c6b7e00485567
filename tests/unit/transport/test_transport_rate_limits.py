from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.errors import ResourceExhausted
from controlplane.observability.metrics import Metrics
from controlplane.transport import rate_limits
from controlplane.transport.interceptors import CallInterceptor
from controlplane.transport.methods import METHODS, Listener, Method, RateLimit
from controlplane.transport.rate_limits import RateLimits


class Seconds:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def method(per_second: float, burst: int) -> Method:
    row = METHODS["/fleetwright.v1.TaskService/CreateTask"]
    return dataclasses.replace(row, rate=RateLimit(per_second, burst))


def taken(limits: RateLimits, row: Method, caller: str, times: int) -> int:
    """Return how many of ``times`` calls are let through."""
    count = 0
    for _ in range(times):
        try:
            limits.take(row, caller)
        except ResourceExhausted:
            continue
        count += 1
    return count


def test_burst_is_let_through_at_once_and_the_next_call_is_told_when_to_come_back() -> None:
    seconds = Seconds()
    limits, row = RateLimits(seconds), method(2, 5)
    assert taken(limits, row, "a", 5) == 5
    with pytest.raises(ResourceExhausted) as refused:
        limits.take(row, "a")
    assert refused.value.reason == "RATE_LIMITED"
    assert refused.value.retry_after == timedelta(seconds=0.5)
    seconds.now += 0.5
    limits.take(row, "a")


def test_callers_and_methods_do_not_share_a_bucket() -> None:
    limits, row = RateLimits(Seconds()), method(1, 1)
    other = dataclasses.replace(row, full_name="/x.Y/Z")
    limits.take(row, "a")
    limits.take(row, "b")
    limits.take(other, "a")


@given(
    per_second=st.floats(0.01, 1000),
    burst=st.integers(1, 50),
    waits=st.lists(st.floats(0, 10), min_size=1, max_size=60),
)
def test_no_more_than_burst_and_rate_get_through(per_second: float, burst: int, waits: list[float]) -> None:
    seconds = Seconds()
    limits, row = RateLimits(seconds), method(per_second, burst)
    count = 0
    for wait in waits:
        seconds.now += wait
        count += taken(limits, row, "a", 1)
    elapsed = sum(waits)
    assert count <= burst + elapsed * per_second + 1e-3


def test_idle_callers_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "_SWEEP_FROM", 10)
    seconds = Seconds()
    limits, row = RateLimits(seconds), method(1, 1)
    for caller in range(1000):
        seconds.now += 1
        limits.take(row, str(caller))
    assert len(limits) <= 10


def test_memory_is_bounded_when_no_one_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "_SWEEP_FROM", 10)
    monkeypatch.setattr(rate_limits, "REMEMBERED", 50)
    limits, row = RateLimits(Seconds()), method(0.001, 1)
    for caller in range(1000):
        limits.take(row, str(caller))
    assert len(limits) <= 50


def test_limits_that_are_given_are_used_though_they_are_empty() -> None:
    limits = RateLimits()
    assert CallInterceptor(Listener.ADMIN, peers=None, metrics=Metrics(), limits=limits)._limits is limits
