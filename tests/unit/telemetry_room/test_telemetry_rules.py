"""Where a batch of points goes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.telemetry.rules import (
    MAX_SEQUENCE,
    MAX_STRETCHES,
    Placement,
    SequenceGap,
    SequenceTooLarge,
    Stretches,
    decode_attributes,
    encode_attributes,
    place,
    stored_until,
    stretched,
)


def test_the_next_batch_is_stored_whole() -> None:
    assert place(10, 11, 0, 5) == Placement(duplicates=0, lost=0, last_sequence=15)


def test_an_overlap_leaves_out_what_is_known() -> None:
    assert place(10, 8, 0, 5) == Placement(duplicates=3, lost=0, last_sequence=12)


def test_a_repeated_batch_stores_nothing_and_moves_nothing() -> None:
    assert place(10, 6, 0, 5) == Placement(duplicates=5, lost=0, last_sequence=10)


def test_a_declared_gap_is_legal() -> None:
    assert place(10, 21, 10, 1) == Placement(duplicates=0, lost=10, last_sequence=21)


def test_a_declaration_may_reach_back_into_what_is_known() -> None:
    assert place(10, 21, 15, 1) == Placement(duplicates=0, lost=10, last_sequence=21)


@pytest.mark.parametrize("dropped", [0, 9])
def test_a_gap_that_is_not_wholly_declared_is_refused_with_the_number_wanted(dropped: int) -> None:
    with pytest.raises(SequenceGap) as refused:
        place(10, 21, dropped, 1)
    assert refused.value.expected == 11


def test_an_unknown_journal_begins_at_one() -> None:
    with pytest.raises(SequenceGap) as refused:
        place(0, 2, 0, 1)
    assert refused.value.expected == 1


def test_numbers_that_no_database_keeps_are_refused() -> None:
    assert place(0, MAX_SEQUENCE, MAX_SEQUENCE - 1, 1).last_sequence == MAX_SEQUENCE
    with pytest.raises(SequenceTooLarge):
        place(0, MAX_SEQUENCE, MAX_SEQUENCE - 1, 2)


batches = st.tuples(
    st.integers(min_value=1, max_value=40),
    st.integers(min_value=0, max_value=40),
    st.integers(min_value=1, max_value=10),
)


@given(st.lists(batches, max_size=30))
def test_every_number_is_stored_once_or_declared_lost(sent: list[tuple[int, int, int]]) -> None:
    last, lost = 0, 0
    stored: list[int] = []
    declared: set[int] = set()
    for first, dropped, points in sent:
        try:
            placement = place(last, first, dropped, points)
        except SequenceGap:
            assert first - dropped > last + 1
            continue
        declared |= set(range(max(1, first - dropped), first))
        stored += range(first + placement.duplicates, first + points)
        lost += placement.lost
        assert placement.last_sequence >= last
        last = placement.last_sequence
    assert len(stored) == len(set(stored))
    assert len(stored) + lost == last
    assert set(range(1, last + 1)) - set(stored) <= declared


def test_where_a_session_came_to_is_where_the_next_one_began() -> None:
    stretches = stretched(stretched((), 3, 0), 7, 40)
    assert [stored_until(stretches, epoch, 60) for epoch in (2, 3, 5, 7, 9)] == [0, 40, 40, 60, 60]


def test_a_journal_of_before_sessions_were_remembered_begins_where_it_stands() -> None:
    assert stored_until((), 5, 60) == 60
    assert stored_until(stretched((), 6, 60), 5, 80) == 60


def test_what_was_before_the_sessions_that_are_remembered_is_not_guessed() -> None:
    stretches: Stretches = ()
    for epoch in range(1, MAX_STRETCHES + 3):
        stretches = stretched(stretches, epoch, epoch * 10)
    assert len(stretches) == MAX_STRETCHES
    assert stored_until(stretches, 2, 500) is None
    assert stored_until(stretches, 3, 500) == 40


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=12))
def test_every_session_is_told_how_far_it_came(sessions: list[tuple[bool, int]]) -> None:
    stretches: Stretches = ()
    last, ends = 0, []
    for epoch, (stores, points) in enumerate(sessions, start=1):
        if stores:
            stretches, last = stretched(stretches, epoch, last), last + points + 1
        ends.append((epoch, last))
    for epoch, end in ends:
        assert stored_until(stretches, epoch, last) in (end, None)


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=8))
def test_attributes_come_back_as_they_were(attributes: dict[str, str]) -> None:
    text = encode_attributes(attributes)
    assert decode_attributes(text) == attributes
    assert encode_attributes(dict(reversed(attributes.items()))) == text


def test_attributes_are_compact_and_sorted() -> None:
    assert encode_attributes({"b": "2", "a": "ä"}) == '{"a":"ä","b":"2"}'
    assert encode_attributes({}) == "{}"
