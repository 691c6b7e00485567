"""The decisions about sessions, clocks passed in."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.sessions import rules
from controlplane.sessions.rules import Allowance
from controlplane.settings import Settings

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("sessions", "seconds"),
    [(0, 10), (1, 10), (5_000, 10), (5_001, 11), (10_000, 20), (149_999, 300), (10**7, 300)],
)
def test_the_interval_grows_with_the_fleet_up_to_a_limit(sessions: int, seconds: int) -> None:
    assert rules.heartbeat_interval(sessions, 10 * SECOND, 500) == seconds * SECOND


def test_an_interval_above_the_limit_that_was_asked_for_stands() -> None:
    assert rules.heartbeat_interval(10**6, 3_600 * SECOND, 1) == 3_600 * SECOND


@given(sessions=st.integers(0, 200_000), least=st.integers(1, 60), pace=st.integers(1, 5_000))
def test_a_fleet_never_beats_faster_than_its_pace_below_the_limit(
    sessions: int, least: int, pace: int
) -> None:
    interval = rules.heartbeat_interval(sessions, least * SECOND, pace)
    assert interval >= least * SECOND
    assert sessions <= pace * interval.total_seconds() or interval == rules.MAX_INTERVAL
    assert interval <= rules.heartbeat_interval(sessions + 1, least * SECOND, pace)


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = Allowance(rate=2, burst=3, tokens=3, filled=0)
    assert [bucket.take(0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(0.4)
    assert bucket.take(0.5)
    assert not bucket.take(0.9)
    assert [bucket.take(100) for _ in range(4)] == [True, True, True, False]


@given(pauses=st.lists(st.floats(0, 5), max_size=60), rate=st.floats(0.1, 10), burst=st.integers(1, 10))
def test_a_bucket_never_gives_more_than_burst_and_rate(pauses: list[float], rate: float, burst: int) -> None:
    bucket, now, given_out = Allowance(rate, burst, burst, 0), 0.0, 0
    for pause in pauses:
        now += pause
        given_out += bucket.take(now)
        assert given_out <= burst + rate * now + 1e-6


@pytest.mark.parametrize("seconds", [1, 10, 300])
def test_an_agent_that_keeps_its_interval_is_never_stopped(seconds: int) -> None:
    bucket = rules.beat_allowance(seconds * SECOND, 0)
    assert all(bucket.take(beat * seconds) for beat in range(200))
    assert sum(bucket.take(200.0 * seconds) for _ in range(100)) <= rules.BEAT_BURST


def test_only_a_newer_session_supersedes() -> None:
    assert [rules.supersedes(epoch, 2) for epoch in (1, 2, 3)] == [False, False, True]


@given(count=st.integers(0, 1_000), seconds=st.integers(0, 600))
def test_a_drain_is_spread_evenly_within_its_window(count: int, seconds: int) -> None:
    window = seconds * SECOND
    times = [rules.spread(position, count, window) for position in range(count)]
    assert times == sorted(times)
    assert all(timedelta(0) <= time <= window for time in times)
    if count > 1:
        assert times[1] - times[0] <= window / count + timedelta(microseconds=1)


def test_progress_passes_once_a_second_for_each_attempt() -> None:
    pace = rules.ProgressPace()
    assert [pace.passes("a", 0.0) for _ in range(5)] == [True, True, False, False, False]
    assert pace.passes("b", 0.0)
    assert [pace.passes("a", second / 4) for second in range(1, 13)].count(True) == 3
    pace.forget("a")
    assert pace.passes("a", 3.0)


def test_each_step_of_an_installation_passes_however_fast_it_comes_and_once() -> None:
    pace = rules.ProgressPace()
    assert [pace.passes("a", 0.0, step) for step in (2, 2, 2, 3, 3, 4, 2, 4)] == [
        *(True, True, False),
        *(True, False),
        *(True, False, False),
    ]
    assert pace.passes("b", 0.0, 4)
    pace.forget("a")
    assert pace._steps == {"b": 4}


def test_the_steps_of_installations_are_remembered_of_a_bounded_number() -> None:
    pace = rules.ProgressPace()
    for number in range(rules.PACED_AT_ONCE * 2):
        assert pace.passes(f"made-up-{number}", 0.0, 2)
    assert len(pace._steps) == rules.PACED_AT_ONCE


def test_the_pace_of_progress_remembers_a_bounded_number_of_attempts() -> None:
    pace = rules.ProgressPace()
    for number in range(rules.PACED_AT_ONCE * 2):
        assert pace.passes(f"made-up-{number}", 0.0)
    assert len(pace._allowances) == rules.PACED_AT_ONCE


def test_who_sends_more_than_allowed_waits_for_as_long_as_it_takes_and_not_longer() -> None:
    allowance = Allowance(rate=10, burst=2, tokens=2, filled=0.0)
    assert [allowance.owe(0.0) for _ in range(4)] == pytest.approx([0, 0, 0.1, 0.2])
    assert allowance.owe(1.0) == 0
    assert rules.message_allowance(0.0).owe(0.0) == 0


@pytest.mark.parametrize(("agents", "seconds"), [(1, 30), (15_000, 30), (20_001, 41), (10**6, 300)])
def test_samplings_grow_apart_with_the_fleet(agents: int, seconds: int) -> None:
    assert rules.telemetry_interval(agents, 30 * SECOND) == seconds * SECOND


@pytest.mark.parametrize(
    ("agents", "seconds"), [(1, 15), (9_999, 15), (10_000, 15), (10_500, 15), (50_000, 72), (10**7, 300)]
)
def test_pings_grow_apart_with_a_fleet_above_ten_thousand(agents: int, seconds: int) -> None:
    assert rules.ping_interval(agents, 15 * SECOND) == seconds * SECOND


def test_a_process_that_stopped_is_seen_within_half_a_minute_below_ten_thousand_agents() -> None:
    fields = Settings.model_fields
    longest = rules.ping_interval(10_000, fields["keepalive_interval"].default)
    assert longest + fields["ping_timeout"].default <= 30 * SECOND
