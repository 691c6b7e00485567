"""Durations, times, labels and enum values, as people type and read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import typer
from fleetwright.v1.agent_registry_service_pb2 import Agent, Presence
from fleetwright.v1.enrollment_token_service_pb2 import EnrollmentTokenState
from hypothesis import given
from hypothesis import strategies as st

from controlplane.cli.values import (
    age,
    duration,
    enum_name,
    label_changes,
    labels,
    moment,
    shown_duration,
    timestamp_message,
)

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("250ms", 0.25), ("24h", 86_400), ("PT1M30S", 90), ("0", 0)]
)
def test_a_duration_is_read_as_the_settings_read_it(text: str, seconds: float) -> None:
    assert duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "soon", "-1", "-PT1S", "1y", "1h30", "nan"])
def test_what_is_no_duration_is_refused_by_its_option(text: str) -> None:
    with pytest.raises(typer.BadParameter) as refused:
        duration(text, "--ttl")
    assert refused.value.param_hint == "--ttl"
    assert repr(text) in refused.value.message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("15m", NOW - timedelta(minutes=15)),
        ("2026-11-23T07:00:00Z", NOW - timedelta(hours=1)),
        ("2026-11-23T09:00:00+02:00", NOW - timedelta(hours=1)),
    ],
)
def test_a_time_is_a_clocks_or_how_long_ago(text: str, expected: datetime) -> None:
    assert moment(text, NOW) == expected


@pytest.mark.parametrize(
    "text", ["yesterday", "2026-11-23T07:00:00", "2026-11-23", "", "999999999d", "0001-01-01T00:00:00+23:59"]
)
def test_a_time_that_another_machine_would_read_otherwise_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter) as refused:
        moment(text, NOW, "--since")
    assert refused.value.param_hint == "--since"


def test_labels_are_read_up_to_the_first_equals_sign() -> None:
    assert labels(["env=prod", "note=a=b", "empty="]) == {"env": "prod", "note": "a=b", "empty": ""}


@pytest.mark.parametrize("texts", [["env"], ["=x"], [""], ["env=a", "env=b"]])
def test_what_is_no_label_is_refused(texts: list[str]) -> None:
    with pytest.raises(typer.BadParameter):
        labels(texts)


@pytest.mark.parametrize("texts", [["hunter2"], ["=hunter2"], ["PIN=hunter2", "PIN=hunter3"]])
def test_a_secret_is_not_said_again_where_it_is_refused(texts: list[str]) -> None:
    with pytest.raises(typer.BadParameter) as refused:
        labels(texts, "--env", secret=True)
    assert refused.value.message.startswith(f"--env number {len(texts)}: ")
    assert "hunter" not in refused.value.message


def test_changes_set_and_remove() -> None:
    assert label_changes(["env=prod-", "rack-", "a-b-"]) == ({"env": "prod-"}, {"rack", "a-b"})


def test_a_label_is_not_set_and_removed_at_once() -> None:
    with pytest.raises(typer.BadParameter, match="env"):
        label_changes(["env=prod", "env-"])


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0s"),
        (0.85, "850ms"),
        (-0.05, "-50ms"),
        (42.9, "42s"),
        (190, "3m10s"),
        (180, "3m"),
        (7500, "2h5m"),
        (356_400, "4d3h"),
        (-3600, "-1h"),
    ],
)
def test_a_duration_is_shown_in_two_units(seconds: float, shown: str) -> None:
    assert shown_duration(timedelta(seconds=seconds)) == shown


@given(st.integers(1, 10**8))
def test_a_shown_duration_is_short_and_never_empty(seconds: int) -> None:
    shown = shown_duration(timedelta(seconds=seconds))
    assert shown
    assert sum(char.isalpha() for char in shown) <= 2


def test_an_age_is_counted_from_now_and_empty_without_a_time() -> None:
    agent = Agent(presence_time=timestamp_message(NOW - timedelta(hours=2)))
    assert age(agent, "presence_time", NOW) == "2h"
    assert age(agent, "last_seen_time", NOW) == ""


def test_a_value_is_named_without_its_type_and_by_number_where_it_is_new() -> None:
    assert enum_name(Presence.DESCRIPTOR, 1) == "ONLINE"
    assert enum_name(EnrollmentTokenState.DESCRIPTOR, 3) == "EXHAUSTED"
    assert enum_name(Presence.DESCRIPTOR, 99) == "99"
