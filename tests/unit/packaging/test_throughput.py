"""Bytes a second, shared in the order in which they are asked for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controlplane.packaging.throughput import Throughput


class _Time:
    """A clock that a sleeper moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


async def test_a_burst_passes_at_once_and_the_rest_at_the_rate() -> None:
    time = _Time()
    shared = Throughput(1_000, 500, time, time.sleep)
    await shared.take(500)
    assert time.slept == []
    await shared.take(250)
    await shared.take(250)
    assert time.slept == [0.25, 0.25]


async def test_an_idle_time_earns_no_more_than_the_burst() -> None:
    time = _Time()
    shared = Throughput(1_000, 500, time, time.sleep)
    time.now += 3_600
    await shared.take(1_500)
    assert time.slept == [1.0]


async def test_no_rate_is_no_limit() -> None:
    time = _Time()
    await Throughput(0, 0, time, time.sleep).take(1 << 40)
    assert time.slept == []


@given(st.lists(st.integers(1, 5_000), min_size=1, max_size=50))
async def test_never_more_passes_than_rate_and_burst_allow(sizes: list[int]) -> None:
    time = _Time()
    shared, begin = Throughput(1_000, 500, time, time.sleep), time.now
    for size in sizes:
        await shared.take(size)
    assert sum(sizes) <= 500 + 1_000 * (time.now - begin) + 1e-3
