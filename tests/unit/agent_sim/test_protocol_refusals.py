"""Which result a refusal is meant for, and which points."""

from __future__ import annotations

from fleetwright.v1 import work_pb2
from hypothesis import given
from hypothesis import strategies as st

from agent_sim.protocol.batches import BatchSize, named_points
from agent_sim.protocol.refusals import Refusals, Remedy
from agent_sim.protocol.results import without_detail


def test_a_refusal_that_several_may_be_meant_for_makes_them_go_one_by_one() -> None:
    refusals = Refusals()
    assert refusals.refused("VALIDATION_FAILED", ["a", "b"]) == ("", Remedy.NONE)
    assert refusals.one_by_one
    assert refusals.refused("VALIDATION_FAILED", ["b"]) == ("b", Remedy.REDUCE)


def test_a_result_that_is_refused_when_reduced_too_is_given_up() -> None:
    refusals = Refusals()
    assert refusals.refused("LIMIT_EXCEEDED", ["a"])[1] is Remedy.REDUCE
    refusals.reduced("a")
    assert refusals.refused("LIMIT_EXCEEDED", ["a"])[1] is Remedy.GIVE_UP


def test_output_that_was_missing_has_a_second_chance() -> None:
    refusals = Refusals()
    outcomes = [refusals.refused("PROTOCOL_VIOLATION", ["a"])[1] for _ in range(2)]
    assert outcomes == [Remedy.NONE, Remedy.REDUCE]


def test_a_defect_of_the_server_never_ends_a_result_and_lets_the_others_go_first() -> None:
    refusals = Refusals()
    for _ in range(10):
        assert refusals.refused("INTERNAL", ["a"])[1] is Remedy.NONE
    assert refusals.order(["a", "b", "c"]) == ["b", "c", "a"]


def test_a_lost_connection_says_nothing_of_a_result() -> None:
    refusals = Refusals()
    for name in ("UNAVAILABLE", "RATE_LIMITED", "SESSION_STALE", "SLOW_READER", "STATUS_LOST"):
        assert refusals.refused(name, ["a"]) == ("", Remedy.NONE)
    assert not refusals.one_by_one


def test_they_go_together_again_when_the_last_one_is_answered() -> None:
    refusals = Refusals()
    refusals.refused("VALIDATION_FAILED", ["a", "b"])
    refusals.answered("a", others=True)
    assert refusals.one_by_one
    refusals.answered("b", others=False)
    assert not refusals.one_by_one


def test_a_reduced_result_keeps_its_outcome_and_counts_what_it_leaves_out() -> None:
    result = work_pb2.AttemptResult(
        outcome=work_pb2.OUTCOME_FAILED,
        reason="exit status 3",
        stdout_bytes=5,
        stderr_bytes=3,
        discarded_bytes=2,
        script=work_pb2.ScriptResult(exit_status=3),
    )
    result.start_time.FromSeconds(7)
    result.end_time.seconds = 10**15
    short = without_detail(result, "é" * 4_000)
    assert (short.outcome, short.WhichOneof("detail"), short.stdout_bytes, short.discarded_bytes) == (
        work_pb2.OUTCOME_FAILED,
        None,
        0,
        10,
    )
    assert short.start_time.seconds == 7
    assert not short.HasField("end_time"), "no server would take the year 31 million"
    assert len(short.reason.encode()) == 2048


def test_points_that_a_refusal_names_are_found_by_their_places() -> None:
    fields = ["batch.points[2].metric", "batch.points[0].value", "batch.points[2].time", "batch.journal_id"]
    assert named_points([*fields, "batch.points[9].metric"], 100, 5) == [100, 102]


@given(st.integers(0, 999))
def test_halving_finds_one_poisonous_point_and_loses_no_other(poison: int) -> None:
    size, queue, taken, refusals = BatchSize(), list(range(1_000)), [], 0
    lost = []
    while queue:
        batch = queue[: size.within(1_000)]
        if poison in batch:
            refusals += 1
            if size.refused(len(batch)):
                lost.append(queue.pop(0))
            continue
        taken += batch
        del queue[: len(batch)]
        size.taken(len(batch))
    assert lost == [poison]
    assert taken == [one for one in range(1_000) if one != poison]
    assert refusals <= 60
