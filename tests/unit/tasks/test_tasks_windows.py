"""When maintenance windows open and close, also over both changes of a clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.clock import from_micros, to_micros
from controlplane.tasks import windows
from controlplane.tasks.records import Window
from controlplane.tasks.windows import WindowInvalid

HOUR = 3_600_000_000
BERLIN = "Europe/Berlin"


def at(text: str, zone: str = BERLIN) -> int:
    return to_micros(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC))


def opening(window: Window, now: int) -> tuple[str, str]:
    """Return begin and end of a window in its own zone, with the offset."""
    due = windows.opening(window, now)
    assert due.window_end is not None
    zone = ZoneInfo(window.zone)
    return tuple(from_micros(one).astimezone(zone).isoformat() for one in (due.not_before, due.window_end))  # type: ignore[return-value]


SATURDAYS = Window("0 2 * * SAT", BERLIN, 2 * HOUR)


@pytest.mark.parametrize(
    ("now", "day"),
    [
        ("2026-11-23T12:00", "2026-11-28"),
        ("2026-11-28T01:59:59.999999", "2026-11-28"),
        ("2026-11-28T02:00", "2026-11-28"),
        ("2026-11-28T03:59:59.999999", "2026-11-28"),
        ("2026-11-28T04:00", "2026-12-05"),
    ],
)
def test_the_window_that_is_open_or_the_next_one(now: str, day: str) -> None:
    assert opening(SATURDAYS, at(now)) == (f"{day}T02:00:00+01:00", f"{day}T04:00:00+01:00")


def test_a_time_that_summer_time_leaves_out_opens_after_the_gap() -> None:
    nights = Window("30 2 * * *", BERLIN, HOUR)
    expected = ("2026-03-29T03:00:00+02:00", "2026-03-29T04:00:00+02:00")
    assert opening(nights, at("2026-03-29T00:00")) == expected
    assert opening(nights, at("2026-03-29T03:10")) == expected
    assert opening(nights, at("2026-03-29T04:00")) == (
        "2026-03-30T02:30:00+02:00",
        "2026-03-30T03:30:00+02:00",
    )


def test_a_time_that_comes_twice_opens_once_and_stays_open_for_elapsed_time() -> None:
    nights = Window("30 2 * * *", BERLIN, HOUR)
    # One hour of elapsed time ends at the same time of day, an hour later.
    expected = ("2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00")
    assert opening(nights, at("2026-10-25T00:00")) == expected
    assert opening(nights, at("2026-10-25T02:45")) == expected
    second = at("2026-10-25T02:30") + HOUR
    assert opening(nights, second) == ("2026-10-26T02:30:00+01:00", "2026-10-26T03:30:00+01:00")


def test_the_same_expression_opens_at_different_instants_in_different_zones() -> None:
    begins = {
        zone: windows.opening(Window("0 2 * * *", zone, HOUR), at("2026-06-01T12:00", "UTC")).not_before
        for zone in (BERLIN, "America/New_York", "UTC")
    }
    assert sorted(begins, key=begins.__getitem__) == [BERLIN, "UTC", "America/New_York"]


def test_windows_that_overlap_are_one_that_is_always_open() -> None:
    always = Window("0 * * * *", "UTC", 2 * HOUR)
    now = at("2026-06-01T12:30", "UTC")
    assert opening(always, now) == ("2026-06-01T12:00:00+00:00", "2026-06-01T14:00:00+00:00")


@pytest.mark.parametrize(
    ("window", "field", "said"),
    [
        (Window("0 2 * *", BERLIN, HOUR), "cron", "is not five fields"),
        (Window("0 0 2 * * *", BERLIN, HOUR), "cron", "is not five fields"),
        (Window("61 2 * * *", BERLIN, HOUR), "cron", "a minute out of form or out of range"),
        (Window("0 2 * * XYZ", BERLIN, HOUR), "cron", "a day-of-week out of form"),
        (Window("0 0 30 2 *", BERLIN, HOUR), "cron", "a day-of-month .* never comes"),
        (Window("0 0 31 4,6 *", BERLIN, HOUR), "cron", "a day-of-month .* never comes"),
        (Window("0 2 * * *", "Mars/Olympus", HOUR), "time_zone", "no time zone 'Mars/Olympus'"),
        (Window("0 2 * * *", "../../etc/passwd", HOUR), "time_zone", "there is no time zone"),
        (Window("0 2 * * *", "Europe", HOUR), "time_zone", "there is no time zone"),
        (Window("0 2 * * *", "UTC\0", HOUR), "time_zone", "there is no time zone"),
    ],
)
def test_a_window_without_a_meaning_is_refused_with_its_field(window: Window, field: str, said: str) -> None:
    with pytest.raises(WindowInvalid, match=said) as refused:
        windows.check(window, at("2026-11-23T12:00"))
    assert refused.value.field == field


@settings(deadline=None)
@given(
    minute=st.integers(0, 59),
    hour=st.integers(0, 23),
    weekday=st.integers(0, 6),
    zone=st.sampled_from([BERLIN, "UTC", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]),
    length=st.integers(60, 604_800),
    now=st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1)),  # noqa: DTZ001 # made aware below
)
def test_what_opens_is_open_now_or_later_and_follows_itself(
    minute: int, hour: int, weekday: int, zone: str, length: int, now: datetime
) -> None:
    window = Window(f"{minute} {hour} * * {weekday}", zone, length * 1_000_000)
    moment = to_micros(now.replace(tzinfo=UTC))
    due = windows.opening(window, moment)
    assert due.window_end == due.not_before + window.duration
    assert due.window_end > moment
    begin = from_micros(due.not_before)
    assert begin - from_micros(moment) <= timedelta(days=8)
    if due.not_before > moment:
        # Nothing opened between now and then, and at its begin it is the one that is open.
        assert windows.opening(window, due.not_before) == due
        assert windows.opening(window, due.not_before - 1) == due
    after = windows.opening(window, due.window_end)
    assert after.not_before > due.not_before
