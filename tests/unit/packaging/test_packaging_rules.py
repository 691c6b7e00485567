"""Where pipelines may go, and what uploads take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.packaging.rules import (
    TRANSITIONS,
    Decision,
    PieceRefused,
    PipelineState,
    Stage,
    StageState,
    after_piece,
    end_of,
    first_to_run,
    may_become,
    skipped_after,
)


def test_every_state_is_in_the_table_and_only_error_is_left_again() -> None:
    assert set(TRANSITIONS) == set(PipelineState)
    left = {state for state in PipelineState if state.final and TRANSITIONS[state]}
    assert left == {PipelineState.ERROR}
    assert may_become(PipelineState.ERROR, PipelineState.QUEUED)


def test_only_a_running_pipeline_passes() -> None:
    for released in (PipelineState.PASSED, PipelineState.EXCEPTED):
        assert [state for state in PipelineState if may_become(state, released)] == [PipelineState.RUNNING]


def test_a_pipeline_ends_as_policy_decided() -> None:
    assert end_of(Decision.PASS) is PipelineState.PASSED
    assert end_of(Decision.EXCEPTION) is PipelineState.EXCEPTED
    assert end_of(Decision.FAIL) is PipelineState.REFUSED
    with pytest.raises(ValueError, match="has not judged"):
        end_of(Decision.UNJUDGED)


def test_what_policy_refused_is_not_stored() -> None:
    assert skipped_after(Stage.POLICY, Decision.FAIL)
    assert not skipped_after(Stage.POLICY, Decision.PASS)
    assert not skipped_after(Stage.SCAN, Decision.UNJUDGED)


@given(st.dictionaries(st.sampled_from(list(Stage)), st.sampled_from(list(StageState))))
def test_no_stage_runs_before_those_before_it_have_succeeded(states: dict[Stage, StageState]) -> None:
    first = first_to_run(states)
    done = [stage for stage in Stage if first is None or stage < first]
    assert all(states[stage] is StageState.SUCCEEDED for stage in done)
    assert first is None or states.get(first) is not StageState.SUCCEEDED


@given(st.integers(1, 50), st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=20))
def test_an_upload_takes_every_byte_once_and_in_order(size: int, pieces: list[tuple[int, int]]) -> None:
    committed = 0
    for offset, length in pieces:
        if offset != committed or committed + length > size:
            with pytest.raises(PieceRefused) as refused:
                after_piece(committed, size, offset, length)
            assert refused.value.committed == committed
            continue
        after = after_piece(committed, size, offset, length)
        assert (offset, after) == (committed, committed + length)
        committed = after
    assert committed <= size
