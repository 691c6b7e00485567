"""When an import may come into force, and when it may be scanned with."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.packaging.advisories.rules import (
    TOLERANCE,
    AdvisoryDataError,
    CorruptError,
    EmptyError,
    Facts,
    FutureError,
    Loss,
    RolledBackError,
    StaleError,
    allowed_loss,
    check_content,
    check_progress,
    check_usable,
    instant,
)

NOW = 1_700_000_000_000_000
DAY = 86_400_000_000
FACTS = Facts("PyPI", "d1", records=1_000, entries=2_000, newest=NOW - DAY)


def usable(
    facts: Facts = FACTS, counted: tuple[int, int] = (1_000, 2_000), ever: int = 0, age: int = 7 * DAY
) -> int:
    return check_usable(facts, counted, ever, NOW, age)


def test_an_import_that_goes_on_is_accepted() -> None:
    check_content(FACTS, NOW)
    check_progress(replace(FACTS, newest=NOW), FACTS, FACTS.newest, Loss())
    check_progress(FACTS, FACTS, FACTS.newest, Loss())


def test_an_empty_import_is_refused() -> None:
    with pytest.raises(EmptyError, match="no records"):
        check_content(replace(FACTS, records=0), NOW)
    with pytest.raises(EmptyError, match="none of the 1000 records names a package"):
        check_content(replace(FACTS, entries=0), NOW)


def test_an_import_from_the_future_is_refused() -> None:
    check_content(replace(FACTS, newest=NOW + TOLERANCE), NOW)
    with pytest.raises(FutureError):
        check_content(replace(FACTS, newest=NOW + TOLERANCE + 1), NOW)


def test_an_import_that_knows_less_far_is_refused() -> None:
    with pytest.raises(RolledBackError, match="less far"):
        check_progress(replace(FACTS, newest=FACTS.newest - 1), FACTS, FACTS.newest, Loss())
    with pytest.raises(RolledBackError, match="less far"):
        check_progress(FACTS, FACTS, FACTS.newest + 1, Loss())


def test_one_record_in_a_hundred_may_go() -> None:
    ids = [f"X-{number}" for number in range(20)]
    check_progress(FACTS, FACTS, 0, Loss(vanished=ids[:10]))
    with pytest.raises(
        RolledBackError, match=r"6 of 1000 records vanished .* and 5 went back \(X-0, .*, …\); 10 may"
    ):
        check_progress(FACTS, FACTS, 0, Loss(ids[:6], ids[6:11]))


def test_of_few_records_none_may_go() -> None:
    few = replace(FACTS, records=99)
    with pytest.raises(RolledBackError):
        check_progress(few, few, 0, Loss(vanished=["X-1"]))


@given(st.integers(0, 10**6))
def test_what_may_go_is_never_more_than_a_hundredth(records: int) -> None:
    assert allowed_loss(records) * 100 <= records


def test_the_age_is_that_of_what_is_known_and_not_of_the_import() -> None:
    assert usable() == DAY
    with pytest.raises(StaleError, match=r"1\.0 days old, and 0\.5 are allowed"):
        usable(age=DAY // 2)


@pytest.mark.parametrize(
    ("facts", "counted", "ever", "error"),
    [
        (replace(FACTS, records=0), (0, 2_000), 0, EmptyError),
        (replace(FACTS, entries=0), (1_000, 0), 0, EmptyError),
        (FACTS, (999, 2_000), 0, CorruptError),
        (FACTS, (1_000, 1_999), 0, CorruptError),
        (FACTS, (0, 0), 0, CorruptError),
        (FACTS, (1_000, 2_000), FACTS.newest + 1, RolledBackError),
        (replace(FACTS, newest=NOW + 2 * TOLERANCE), (1_000, 2_000), 0, FutureError),
        (replace(FACTS, newest=0), (1_000, 2_000), 0, StaleError),
    ],
)
def test_advisories_that_cannot_be_used_are_an_error(
    facts: Facts, counted: tuple[int, int], ever: int, error: type[AdvisoryDataError]
) -> None:
    with pytest.raises(error) as raised:
        usable(facts, counted, ever)
    assert raised.value.reason == error.reason
    assert str(raised.value).startswith("PyPI: ")


def test_a_clock_a_little_behind_makes_no_negative_age() -> None:
    assert usable(replace(FACTS, newest=NOW + 5)) == 0


def test_the_year_one_is_no_instant() -> None:
    assert instant(5, 3) == 5
    assert instant(-62_135_596_800_000_000, 3) == 3
    assert instant(-1, None) == 0
    assert instant(-1, None, 7) == 7
