from __future__ import annotations

from datetime import UTC, datetime

from fleetwright.v1 import work_pb2

from agent_sim.protocol.results import MAX_RESULT_BYTES, cancelled, complete, interrupted

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_result_too_large_for_a_message_becomes_a_failure_that_says_so() -> None:
    packages = [
        work_pb2.InstalledPackage(manager="pip", name="p" * 200, version=str(i)) for i in range(20_000)
    ]
    result = work_pb2.AttemptResult(
        outcome=work_pb2.OUTCOME_SUCCEEDED, inventory=work_pb2.InventoryResult(packages=packages)
    )
    size = result.ByteSize()
    assert size > MAX_RESULT_BYTES
    small = complete(result, NOW, NOW)
    assert small.outcome == work_pb2.OUTCOME_FAILED
    assert str(size) in small.reason
    assert small.ByteSize() < 1024


def test_a_reason_is_cut_between_characters() -> None:
    result = work_pb2.AttemptResult(outcome=work_pb2.OUTCOME_FAILED, reason="ä" * 2000)
    assert complete(result, NOW, NOW).reason == "ä" * 1024


def test_a_refusal_has_no_begin_and_an_interruption_has_one_where_work_began() -> None:
    refused = complete(work_pb2.AttemptResult(outcome=work_pb2.OUTCOME_REFUSED), NOW, NOW)
    waited, ran = cancelled(NOW, None), interrupted(NOW, NOW)
    assert [result.HasField("start_time") for result in (refused, waited, ran)] == [False, False, True]
    assert all(result.HasField("end_time") for result in (refused, waited, ran))
