"""What a row of the table says of itself."""

from __future__ import annotations

from typing import Any

import pytest

from faults.report import Row, markdown

DONE: dict[str, Any] = {"tasks": 3, "effects": 3}


def row(**values: Any) -> Row:
    return Row("a fault", "something breaks", **values)


def test_work_that_was_done_with_nothing_lost_or_doubled_is_good() -> None:
    assert (row(**DONE).good, row(**DONE).verdict) == (True, "good")


@pytest.mark.parametrize(
    "values",
    [{"tasks": 3}, {}, DONE | {"lost": 1}, DONE | {"doubled": 1}, DONE | {"problems": ["late"]}],
)
def test_a_row_that_shows_nothing_or_lost_or_doubled_something_has_failed(values: dict[str, Any]) -> None:
    found = row(**values)
    assert (found.good, found.verdict) == (False, "FAILED")
    assert "FAILED" in markdown([found])


def test_a_row_that_was_not_tried_is_shown_as_that_and_is_not_good() -> None:
    found = row(skipped="no right to mount")
    assert (found.good, found.verdict) == (False, "not tried")
    assert "not tried: no right to mount" in markdown([found])
    assert found.json()["good"] is False
