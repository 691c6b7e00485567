"""The server's time, carried on by a clock that does not jump."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from agent_sim.protocol.clock import ServerTime, SystemClock

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


class HandClock:
    """Both clocks are the test's."""

    def __init__(self, wall: datetime = NOON) -> None:
        self.wall = wall
        self.seconds = 100.0

    def now(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return self.seconds


def test_before_a_welcome_it_is_the_hosts_own_clock() -> None:
    clock = HandClock()
    assert ServerTime(clock).now() == NOON


def test_after_a_welcome_a_wall_clock_that_jumps_does_not_move_it() -> None:
    clock = HandClock()
    server = ServerTime(clock)
    server.welcomed(NOON + 5 * HOUR)
    for jump in (9 * HOUR, -20 * HOUR, timedelta(0)):
        clock.wall += jump
        clock.seconds += 60.0
    assert server.now() == NOON + 5 * HOUR + timedelta(minutes=3)


def test_the_next_welcome_sets_it_anew() -> None:
    server = ServerTime(HandClock())
    server.welcomed(NOON + HOUR)
    server.welcomed(NOON - HOUR)
    assert server.now() == NOON - HOUR


def test_the_systems_monotonic_clock_counts_the_time_asleep() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    read = SystemClock().monotonic()
    assert before <= read <= time.clock_gettime(time.CLOCK_BOOTTIME)
