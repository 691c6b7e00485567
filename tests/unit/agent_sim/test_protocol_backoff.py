from __future__ import annotations

import random
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from agent_sim.protocol.backoff import Backoff, to_wait

BASE, CAP, STABLE = timedelta(seconds=1), timedelta(seconds=30), timedelta(minutes=1)


class Highest(random.Random):
    """Always draws the upper bound, so that the bound itself can be seen."""

    def uniform(self, a: float, b: float) -> float:
        return b


def highest() -> Backoff:
    return Backoff(BASE, CAP, STABLE, Highest())


def test_the_bound_doubles_up_to_the_cap() -> None:
    backoff = highest()
    assert [backoff.next_delay(0.0).total_seconds() for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]


def test_a_session_that_lived_for_a_stable_minute_starts_from_the_base_again() -> None:
    backoff = highest()
    for _ in range(4):
        backoff.next_delay(0.0)
    backoff.connected(100.0)
    assert backoff.next_delay(160.0) == BASE


def test_a_session_that_fell_at_once_does_not() -> None:
    backoff = highest()
    for _ in range(4):
        backoff.next_delay(0.0)
    backoff.connected(100.0)
    assert backoff.next_delay(159.9).total_seconds() == 16


@given(st.integers(), st.lists(st.tuples(st.booleans(), st.floats(0, 120)), max_size=60))
def test_a_delay_is_never_negative_and_never_over_the_cap(
    seed: int, events: list[tuple[bool, float]]
) -> None:
    backoff = Backoff(BASE, CAP, STABLE, random.Random(seed))
    now = 0.0
    for connects, passed in events:
        now += passed
        if connects:
            backoff.connected(now)
        else:
            assert timedelta(0) <= backoff.next_delay(now) <= CAP


def test_a_wait_that_the_server_named_counts_unless_it_is_none_at_all() -> None:
    second, minute = timedelta(seconds=1), timedelta(minutes=1)
    assert [to_wait(told, second) for told in (minute, timedelta(0), None)] == [minute, second, second]


def test_full_jitter_spreads_a_fleet_evenly_over_the_whole_delay() -> None:
    # 2,000 agents that have failed four times in a row: the fifth delay lies between 0 and 16 s.
    delays = []
    for seed in range(2_000):
        backoff = Backoff(BASE, CAP, STABLE, random.Random(seed))
        for _ in range(4):
            backoff.next_delay(0.0)
        delays.append(backoff.next_delay(0.0).total_seconds())
    seconds = [sum(second <= delay < second + 1 for delay in delays) for second in range(16)]
    assert sum(seconds) == 2_000
    # An even spread is 125 a second; five standard deviations are 54.
    assert all(125 - 54 <= count <= 125 + 54 for count in seconds)


def test_an_agent_that_flaps_ever_so_often_is_slowed_down_to_the_cap() -> None:
    backoff = highest()
    now, delays = 0.0, []
    for _ in range(8):
        backoff.connected(now)
        now += STABLE.total_seconds() - 0.001
        delays.append(backoff.next_delay(now))
        now += delays[-1].total_seconds()
    assert delays[-1] == CAP


@given(st.integers())
def test_the_same_seed_gives_the_same_delays(seed: int) -> None:
    first, second = (Backoff(BASE, CAP, STABLE, random.Random(seed)) for _ in range(2))
    assert [first.next_delay(0.0) for _ in range(9)] == [second.next_delay(0.0) for _ in range(9)]
