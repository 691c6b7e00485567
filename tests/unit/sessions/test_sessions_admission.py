"""The gate and the virtual queue behind it, with a clock that the test turns."""

from __future__ import annotations

import heapq
import random
from collections import deque
from itertools import count, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.sessions.rules import admission
from controlplane.sessions.rules.admission import (
    FIRST_RATE,
    FIRST_WIDTH,
    LEAST_RATE,
    LEAST_WIDTH,
    Answer,
    Gate,
    Verdict,
)
from controlplane.sessions.rules.strain import MOST_QUEUED, Strain

CALM = Strain()
TARGET = 1.0


def filled(gate: Gate, now: float = 0.0) -> list[Answer]:
    """Let newcomers in until the gate is full."""
    answers: list[Answer] = []
    for number in count():
        answer = gate.ask(f"filler-{number}", now, live=False, jitter=0.5)
        if not answer.admitted:
            return answers
        answers.append(answer)
    raise AssertionError


def test_an_open_gate_lets_everyone_in_and_a_full_one_gives_slots() -> None:
    gate = Gate(TARGET, 0.0)
    answers = filled(gate)
    assert len(answers) == gate.under_way == FIRST_WIDTH
    assert gate.backlog == 1
    refused = gate.ask("late", 0.0, live=False, jitter=0.0)
    assert (refused.verdict, refused.wait >= admission.LEAST_WAIT) == (Verdict.REFUSED, True)
    gate.done(answers[0], 0.1, 0.1)
    assert gate.under_way == FIRST_WIDTH - 1
    assert gate.ask("other", 0.1, live=False, jitter=0.0).verdict is Verdict.ADMITTED


@given(jitters=st.lists(st.floats(0, 0.999), min_size=2, max_size=200))
def test_no_slot_is_given_twice_and_they_lie_as_far_apart_as_admissions(jitters: list[float]) -> None:
    gate = Gate(TARGET, 0.0)
    filled(gate)
    step = 1 / gate.rate
    waits = [gate.ask(f"a-{n}", 0.0, live=False, jitter=jitter).wait for n, jitter in enumerate(jitters)]
    slots = [(wait - admission.LEAST_WAIT) / step for wait in waits]
    # One slot in each step of the rate, wherever in it.
    assert [int(slot + 1e-6) for slot in slots] == list(range(1, len(slots) + 1))


def test_whoever_comes_early_or_twice_keeps_its_slot() -> None:
    gate = Gate(TARGET, 0.0)
    filled(gate)
    first = gate.ask("a", 0.0, live=False, jitter=0.3)
    behind = gate.ask("b", 0.0, live=False, jitter=0.3)
    again = gate.ask("a", 0.2, live=False, jitter=0.9)
    assert again.wait == pytest.approx(first.wait - 0.2)
    assert first.wait < behind.wait
    assert gate.backlog == 3


def test_whoever_is_due_passes_before_newcomers_although_the_gate_is_full_of_them() -> None:
    gate = Gate(TARGET, 0.0)
    filled(gate)
    wait = gate.ask("a", 0.0, live=False, jitter=0.0).wait
    assert gate.ask("newcomer", wait, live=False, jitter=0.0).verdict is Verdict.REFUSED
    assert gate.ask("a", wait, live=False, jitter=0.0).verdict is Verdict.AT_SLOT


def test_newcomers_leave_half_of_the_gate_to_those_that_are_due() -> None:
    gate = Gate(TARGET, 0.0)
    answers = filled(gate)
    wait = gate.ask("a", 0.0, live=False, jitter=0.0).wait
    for answer in answers[: int(FIRST_WIDTH / 2)]:
        gate.done(answer, 0.1, 0.1)
    assert gate.ask("early", 0.1, live=False, jitter=0.0).verdict is Verdict.ADMITTED
    assert gate.ask("newcomer", wait, live=False, jitter=0.0).verdict is Verdict.REFUSED


def test_a_session_that_replaces_its_own_always_passes() -> None:
    gate = Gate(TARGET, 0.0)
    filled(gate)
    assert gate.ask("a", 0.0, live=True, jitter=0.0).verdict is Verdict.REPLACES


def test_a_slot_that_nobody_uses_is_taken_back() -> None:
    gate = Gate(TARGET, 0.0)
    filled(gate)
    assert gate.backlog == 1
    gate.ask("b", 60.0, live=True, jitter=0.0)
    assert gate.backlog == 0


def test_a_full_gate_in_which_hellos_are_quick_grows_and_a_slow_one_shrinks() -> None:
    gate = Gate(TARGET, 0.0)
    answers = filled(gate)
    gate.size(CALM, 0.25)
    wider = gate.width
    assert wider > FIRST_WIDTH
    gate.size(CALM, 0.5)
    assert gate.width == wider  # nobody was turned away meanwhile
    gate.done(answers[0], 2.0, 2.0)
    gate.size(CALM, 2.0)
    narrower = gate.width
    assert narrower < wider
    # That one had passed the wider gate too.
    gate.done(answers[1], 2.5, 2.5)
    gate.size(CALM, 2.5)
    assert gate.width == narrower


@pytest.mark.parametrize(
    "strain", [Strain(loop_lag=TARGET), Strain(commit=TARGET), Strain(queued=MOST_QUEUED + 1)]
)
def test_a_strained_process_narrows_its_gate_down_to_a_bound(strain: Strain) -> None:
    gate = Gate(TARGET, 0.0)
    for second in range(50):
        gate.size(strain, float(second))
    assert gate.width == LEAST_WIDTH
    assert gate.ask("a", 0.0, live=False, jitter=0.0).admitted


def test_slots_follow_the_rate_that_was_measured() -> None:
    gate = Gate(TARGET, 0.0)
    answers = filled(gate)
    for place, answer in enumerate(answers):
        gate.done(answer, 0.1, place / 64)  # 64 a second
    assert LEAST_RATE <= gate.rate < admission.FIRST_RATE


@settings(max_examples=60, deadline=None)
@given(agents=st.integers(2, 1_500), served=st.integers(60, 1_500), seed=st.integers(0, 2**32))
def test_a_storm_passes_and_nobody_is_turned_away_for_ever(agents: int, served: int, seed: int) -> None:
    """Agents that obey their slots, on a server that welcomes ``served`` of them a second."""
    rng = random.Random(seed)
    gate = Gate(TARGET, 0.0)
    hellos = [(rng.random(), number) for number in range(agents)]
    heapq.heapify(hellos)
    under_way: deque[tuple[float, float, Answer]] = deque()
    tries = [0] * agents
    free_at = sized = 0.0

    def finish(until: float) -> None:
        while under_way and under_way[0][0] <= until:
            at, began, answer = under_way.popleft()
            gate.done(answer, at - began, at)

    while hellos:
        now, number = heapq.heappop(hellos)
        finish(now)
        while sized + 0.25 <= now:
            sized += 0.25
            gate.size(CALM, sized)
        tries[number] += 1
        answer = gate.ask(f"a-{number}", now, live=False, jitter=rng.random())
        if answer.admitted:
            free_at = max(now, free_at) + 1 / served
            under_way.append((free_at, now, answer))
        else:
            # With up to a tenth more, as the reference agent does.
            heapq.heappush(hellos, (now + answer.wait * rng.uniform(1, 1.1), number))
    finish(free_at)
    assert gate.under_way == gate.backlog == 0
    assert max(tries) <= 5
    # As long as the work takes, and a share for a rate that had to be guessed at first.
    assert free_at <= 5 + 2 * agents / min(served, FIRST_RATE)


def test_slots_of_agents_that_keep_them_come_in_the_order_of_their_hellos() -> None:
    gate = Gate(TARGET, 0.0)
    filled(gate)
    waits = [gate.ask(f"a-{n}", n / 1_000, live=False, jitter=0.5).wait + n / 1_000 for n in range(50)]
    assert all(one < other for one, other in pairwise(waits))
