"""When a part is started again, and which parts there are."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.settings import Role, Settings
from controlplane.supervisor.plan import PlannedPart, plan
from controlplane.supervisor.rules import FIRST, LONGEST, LOOK, SILENT, STABLE, Restarts, Silence


def test_a_part_that_keeps_ending_waits_twice_as_long_each_time() -> None:
    restarts = Restarts()
    waits = []
    for second in range(8):
        restarts.served(second)
        waits.append(restarts.ended(second + 0.5))
    assert waits[:4] == [FIRST, 2 * FIRST, 4 * FIRST, 8 * FIRST]
    assert waits[-1] == LONGEST
    assert restarts.count == 8


def test_one_that_served_for_a_stable_minute_begins_with_the_shortest_wait() -> None:
    restarts = Restarts()
    for second in range(3):
        restarts.served(second)
        restarts.ended(second + 0.5)
    restarts.served(10)
    assert restarts.ended(10 + STABLE.total_seconds()) == FIRST


def test_one_that_never_served_is_not_started_again() -> None:
    assert Restarts().ended(5) is None


def test_one_that_served_once_is_started_again_also_where_it_cannot_for_now() -> None:
    restarts = Restarts()
    restarts.served(0)
    assert [restarts.ended(1), restarts.ended(2)] == [FIRST, 2 * FIRST]


@given(st.lists(st.tuples(st.booleans(), st.floats(min_value=0, max_value=1e6))))
def test_waits_stay_between_the_shortest_and_the_longest(history: list[tuple[bool, float]]) -> None:
    restarts, now = Restarts(), 0.0
    for served, lasted in history:
        if served:
            restarts.served(now)
        now += lasted
        wait = restarts.ended(now)
        assert wait is None or FIRST <= wait <= LONGEST
        assert (wait is None) == (not restarts.served_before)


def test_a_part_is_taken_for_dead_after_so_many_looks_without_a_word() -> None:
    silence, looks = Silence(), 1
    while not silence.looked():
        looks += 1
    assert looks == SILENT / LOOK + 1


def test_a_word_now_and_then_keeps_a_part_alive_whose_loop_stalls() -> None:
    silence = Silence()
    for stall in (1, 3, 10, SILENT // LOOK):
        assert not any(silence.looked() for _ in range(stall))
        silence.heard()


def settings(**changes: object) -> Settings:
    return Settings(**{"data_dir": Path("site"), **changes})  # type: ignore[arg-type]


def test_every_part_has_a_port_for_health_of_its_own() -> None:
    parts = plan(settings(gateways=2, health_port=7446))
    assert parts == [
        PlannedPart("worker", Role.WORKER, 7449),
        PlannedPart("api", Role.API, 7446),
        PlannedPart("gateway-1", Role.GATEWAY, 7447),
        PlannedPart("gateway-2", Role.GATEWAY, 7448),
    ]
    assert {part.health_port for part in plan(settings(gateways=2, health_port=0))} == {0}


def test_a_machine_may_have_gateways_alone() -> None:
    assert [part.name for part in plan(settings(gateways=2, roles="gateway"))] == ["gateway-1", "gateway-2"]


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({}, ""),
        ({"gateways": 3}, "3 gateways"),
        ({"roles": "api,worker"}, "a server without the role gateway"),
    ],
)
def test_what_asks_for_several_processes_is_put_into_words(changes: dict[str, object], asked: str) -> None:
    assert settings(**changes).split() == asked


def test_one_late_renewal_is_no_lapse() -> None:
    with pytest.raises(ValueError, match="process_lease must be at least twice process_renewal"):
        settings(process_renewal=timedelta(seconds=8))
