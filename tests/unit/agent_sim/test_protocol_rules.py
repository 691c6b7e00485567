from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent_sim.protocol.rules import Admission, AttemptIndex, AttemptState

CAPACITY = 4


def test_the_same_attempt_is_known() -> None:
    index = AttemptIndex(CAPACITY)
    assert [index.admit("a", "t") for _ in range(2)] == [Admission.NEW, Admission.KNOWN]


def test_a_second_attempt_of_an_unreported_task_waits_until_the_first_is_forgotten() -> None:
    index = AttemptIndex(CAPACITY)
    index.admit("a", "t")
    assert index.admit("b", "t") is Admission.TASK_BUSY
    index.remove("a")
    assert index.admit("b", "t") is Admission.NEW


def test_what_is_not_durable_is_not_listed() -> None:
    index = AttemptIndex(CAPACITY)
    index.admit("a", "t")
    assert list(index.durable()) == []
    index.move("a", AttemptState.JOURNALED)
    assert list(index.durable()) == [("a", "t", AttemptState.JOURNALED)]


def test_an_attempt_never_goes_back() -> None:
    index = AttemptIndex(CAPACITY)
    index.restore("a", "t", AttemptState.FINISHED)
    with pytest.raises(ValueError, match="cannot go from finished to running"):
        index.move("a", AttemptState.RUNNING)


class Journals(RuleBasedStateMachine):
    """Against a plain model: what is held, and what was ever run."""

    def __init__(self) -> None:
        super().__init__()
        self.index = AttemptIndex(CAPACITY)
        self.held: dict[str, str] = {}
        self.runs: dict[str, int] = {}

    @rule(number=st.integers(0, 8), task=st.integers(0, 3))
    def assign(self, number: int, task: int) -> None:
        attempt_id, name = f"{number}-{task}", str(task)
        admission = self.index.admit(attempt_id, name)
        if attempt_id in self.held:
            assert admission is Admission.KNOWN
        elif name in self.held.values():
            assert admission is Admission.TASK_BUSY
        elif len(self.held) == CAPACITY:
            assert admission is Admission.FULL
        else:
            assert admission is Admission.NEW
            self.held[attempt_id] = name
            self.index.move(attempt_id, AttemptState.JOURNALED)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        attempt_id = data.draw(st.sampled_from(sorted(self.held)))
        self.index.remove(attempt_id)
        del self.held[attempt_id]

    @invariant()
    def agrees(self) -> None:
        assert [(attempt_id, task) for attempt_id, task, _ in self.index.durable()] == list(self.held.items())
        assert len(set(self.held.values())) == len(self.held) <= CAPACITY


TestJournals = Journals.TestCase
