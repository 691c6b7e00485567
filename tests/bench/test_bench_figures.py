from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.figures import BUDGETS, Budget, Of, Window, line, percentile, significant
from bench.measures import MEASURES
from bench.run import by_measure

AT_LEAST = Budget("a", "m", "what", "1/s", at_least=0.5)
AT_MOST = Budget("b", "m", "what", "KB", at_most=1.25)
ABSOLUTE = Budget("c", "m", "what", "ms", Of.VALUE, at_most=10)
UNBOUNDED = Budget("d", "m", "what", "us")

ALWAYS = {"name", "yardstick", "value", "ratio", "budget", "met"}


@pytest.mark.parametrize(
    ("budget", "value", "met"),
    [
        (AT_LEAST, 50.0, True),
        (AT_LEAST, 49.9, False),
        (AT_MOST, 125.0, True),
        (AT_MOST, 125.1, False),
        (ABSOLUTE, 10.0, True),
        (ABSOLUTE, 10.1, False),
    ],
)
def test_a_budget_is_kept_up_to_its_bound_and_no_further(budget: Budget, value: float, met: bool) -> None:
    assert line(budget, [Window(100.0, value)]).met is met


def test_a_ratio_is_of_each_window_and_not_of_the_medians() -> None:
    windows = [Window(100.0, 50.0), Window(10.0, 9.0), Window(1.0, 0.2)]
    result = line(AT_LEAST, windows)
    assert (result.value, result.yardstick, result.ratio) == (9.0, 10.0, 0.5)
    assert result.ratio_range == (0.2, 0.9)


def test_one_window_has_no_range() -> None:
    assert line(AT_LEAST, [Window(2.0, 1.0)]).ratio_range is None


def test_a_quick_run_claims_nothing() -> None:
    result = line(AT_MOST, [Window(1.0, 1.0)], quick=True)
    assert (result.met, result.json()["quick"]) == (None, True)


def test_figures_of_less_load_than_the_budget_is_for_keep_no_budget() -> None:
    assert line(ABSOLUTE, [Window(None, 1.0)], void=True).met is False


def test_a_figure_without_a_bound_is_neither_met_nor_missed() -> None:
    assert line(UNBOUNDED, [Window(1.0, 1.0)]).met is None


def test_a_ratio_that_is_bounded_needs_a_yardstick() -> None:
    assert line(AT_MOST, [Window(None, 1.0)]).met is False


def test_a_budget_without_windows_is_an_error() -> None:
    with pytest.raises(ValueError, match="a: no window was measured"):
        line(AT_LEAST, [])


@pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS)
def test_every_line_has_the_fields_that_programs_read(budget: Budget) -> None:
    result = line(budget, [Window(1.0, 2.0), Window(1.0, 3.0)], note="n")
    assert json.loads(json.dumps(result.json())).keys() >= ALWAYS
    bare = line(budget, [Window(None, 2.0)])
    assert bare.json().keys() >= ALWAYS


def test_what_is_empty_is_left_out_of_a_line() -> None:
    result = replace(line(UNBOUNDED, [Window(1.0, 2.0)]), what="")
    assert set(result.json()) == ALWAYS | {"unit", "windows"}


def test_every_measure_serves_a_budget_and_every_budget_has_a_measure() -> None:
    assert {budget.measure for budget in BUDGETS.values()} == set(MEASURES)


def test_budgets_of_one_measure_are_taken_together() -> None:
    assert by_measure(["connects", "memory"], "sqlite") == {"growth": ["memory", "connects"]}


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_all_budgets_of_a_database_are_taken_where_none_is_named(database: str) -> None:
    taken = {name for names in by_measure([], database).values() for name in names}
    assert taken == {name for name, budget in BUDGETS.items() if budget.on in ("", database)} != set(BUDGETS)


def test_a_budget_of_another_database_is_refused() -> None:
    with pytest.raises(ValueError, match="telemetry: is measured on postgresql alone"):
        by_measure(["telemetry"], "sqlite")


def test_an_unknown_budget_is_named_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="speed: no budget has this name; choose of memory, "):
        by_measure(["speed"], "sqlite")


@given(st.floats(1e-6, 1e12))
def test_four_digits_are_kept(value: float) -> None:
    assert significant(value) == pytest.approx(value, rel=5e-4)


def test_percentiles_are_interpolated() -> None:
    values = [float(value) for value in range(101)]
    assert (percentile(values, 50), percentile(values, 99)) == (50.0, 99.0)


def test_a_percentile_of_one_value_is_an_error() -> None:
    with pytest.raises(ValueError, match="two values"):
        percentile([1.0], 50)
