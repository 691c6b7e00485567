"""How fast backlogs are taken in, with a clock that the test turns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.sessions.rules import replay
from controlplane.sessions.rules.replay import LEAST_BUDGET, LEAST_RATE, Pace
from controlplane.sessions.rules.strain import Strain

MOST = 20_000
STRAINED = Strain(loop_lag=1.0)


def test_a_backlog_is_taken_in_at_the_rate_and_no_faster() -> None:
    pace, now = Pace(MOST, 0.0), 0.0
    for _ in range(1_000):
        now += pace.owe(100, now)
    assert now == pytest.approx(1_000 * 100 / MOST, rel=0.01)


def test_points_that_were_paid_for_and_did_not_come_are_given_back() -> None:
    pace = Pace(MOST, 0.0)
    assert pace.owe(MOST, 0.0) > 0.9
    assert pace.owe(-MOST, 0.0) == 0


def test_a_lone_stream_has_the_whole_budget_and_many_share_it() -> None:
    pace = Pace(MOST, 0.0)
    pace.streams = 1
    assert pace.budget(5_000) == 5_000
    pace.streams = 50
    assert pace.budget(5_000) == MOST * replay.SHARED_SECONDS / 50


@given(streams=st.integers(0, 100_000), most=st.integers(1_000, 100_000), looks=st.integers(0, 30))
def test_every_stream_can_always_go_on(streams: int, most: int, looks: int) -> None:
    pace = Pace(MOST, 0.0)
    pace.streams = streams
    for look in range(looks):
        pace.size(STRAINED, look * 0.25)
    assert LEAST_BUDGET <= pace.budget(most) <= most


def test_a_strained_process_slows_replays_down_to_a_bound_and_speeds_up_again() -> None:
    pace = Pace(MOST, 0.0)
    pace.size(STRAINED, 0.0)
    assert LEAST_RATE < pace.rate < MOST
    for look in range(40):
        pace.size(STRAINED, look * 0.25)
    assert pace.rate == LEAST_RATE
    for look in range(40):
        pace.size(Strain(), look * 0.25)
    assert pace.rate == MOST


def test_a_rate_below_the_least_that_was_asked_for_stands() -> None:
    pace = Pace(1_000, 0.0)
    pace.size(STRAINED, 0.0)
    assert pace.rate == 1_000
