"""Tasks and measurements as people read them, and names as they write them."""

from __future__ import annotations

import pytest
import typer
from fleetwright.v1 import work_pb2
from fleetwright.v1.task_service_pb2 import Task, TaskState

from controlplane.cli.tasks.naming import filter_of, quoted, resource
from controlplane.cli.tasks.said import stream_named
from controlplane.cli.tasks.views import FINAL, result_words, work_words
from controlplane.cli.telemetry import value_words
from controlplane.tasks import rules


def test_the_final_states_are_those_of_the_server() -> None:
    assert {int(state) for state in rules.FINAL} == FINAL


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (
            work_pb2.AttemptResult(
                outcome=work_pb2.OUTCOME_SUCCEEDED, script=work_pb2.ScriptResult(exit_status=0)
            ),
            "exit 0",
        ),
        (
            work_pb2.AttemptResult(outcome=work_pb2.OUTCOME_FAILED, script=work_pb2.ScriptResult(signal=9)),
            "signal 9",
        ),
        (
            work_pb2.AttemptResult(
                outcome=work_pb2.OUTCOME_SUCCEEDED, echo=work_pb2.EchoResult(payload=b"hi \xff")
            ),
            "hi \ufffd",
        ),
        (
            work_pb2.AttemptResult(outcome=work_pb2.OUTCOME_SUCCEEDED, inventory=work_pb2.InventoryResult()),
            "done",
        ),
        (
            work_pb2.AttemptResult(outcome=work_pb2.OUTCOME_REFUSED, reason="policy script.users"),
            "policy script.users",
        ),
        (work_pb2.AttemptResult(outcome=work_pb2.OUTCOME_TIMED_OUT), "TIMED_OUT"),
        (
            work_pb2.AttemptResult(
                outcome=work_pb2.OUTCOME_SUCCEEDED,
                install=work_pb2.InstallResult(
                    status=work_pb2.DEPLOYMENT_STATUS_INSTALLED,
                    previous_version="0.9",
                    verified=["digest", "verdict"],
                ),
            ),
            "INSTALLED; in the place of 0.9; verified digest, verdict",
        ),
        (
            work_pb2.AttemptResult(
                outcome=work_pb2.OUTCOME_FAILED,
                reason="tool --version said nothing",
                install=work_pb2.InstallResult(
                    status=work_pb2.DEPLOYMENT_STATUS_ROLLED_BACK,
                    reason_code="NOT_DETECTED",
                    previous_version="0.9",
                ),
            ),
            "ROLLED_BACK (NOT_DETECTED); before: 0.9: tool --version said nothing",
        ),
    ],
)
def test_a_result_is_put_in_a_few_words(result: work_pb2.AttemptResult, words: str) -> None:
    assert result_words(Task(result=result)) == words


def test_a_task_without_a_result_has_no_words_for_it() -> None:
    assert result_words(Task()) == ""


def test_long_work_is_told_by_its_first_line() -> None:
    script = work_pb2.ScriptSpec(interpreter="sh", body="\necho 1\necho 2\necho 3\n", arguments=["a"])
    assert work_words(work_pb2.TaskSpec(script=script)) == "sh: echo 1 (and 2 lines more) a"


def test_an_installation_names_its_package() -> None:
    install = work_pb2.InstallSpec(
        package="packages/abc", target_path="stable/tool/1/tool.tgz", package_name="tool", version="1"
    )
    words = work_words(work_pb2.TaskSpec(install=install))
    assert words == "tool 1, packages/abc at stable/tool/1/tool.tgz"


def test_a_bare_id_is_a_task_and_names_stay_as_they_are() -> None:
    assert resource("abc") == "tasks/abc"
    assert resource("tasks/abc") == "tasks/abc"
    assert resource("taskBatches/abc") == "taskBatches/abc"


def test_options_are_joined_to_the_filter_after_its_text() -> None:
    assert filter_of("", None, None, None) == ""
    assert filter_of("kind = echo", "agents/web-1", ["failed", "TASK_STATE_DEAD"], "taskBatches/b") == (
        'kind = echo AND agent_id = "web-1" AND state = (FAILED OR DEAD) AND batch_id = "b"'
    )


def test_an_unknown_state_or_stream_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(typer.BadParameter, match=r"'DONE': choose one of QUEUED, LEASED, .*DEAD"):
        filter_of("", None, ["DONE"], None)
    with pytest.raises(typer.BadParameter, match="stdout, stderr or log"):
        stream_named("out")
    assert stream_named("LOG") == work_pb2.OUTPUT_STREAM_LOG
    assert TaskState.Value("TASK_STATE_DEAD") in FINAL


def test_a_value_of_a_filter_means_itself_whatever_it_holds() -> None:
    assert quoted('a"b\\c*') == '"a\\"b\\\\c\\*"'


@pytest.mark.parametrize(
    ("metric", "value", "words"),
    [
        ("memory.used_bytes", 1536.0, "1.5 KiB"),
        ("memory.used_bytes", 12.0, "12 B"),
        ("disk.free_bytes", 3.5 * 1024**5, "3.5 PiB"),
        ("disk.free_bytes", 3.5 * 1024**7, "3,670,016.0 PiB"),
        ("cpu.used_ratio", 0.125, "12.5 %"),
        ("cpu.load1", 7.628, "7.628"),
        ("process.count", 1200.0, "1,200"),
    ],
)
def test_a_measured_value_is_told_by_its_unit(metric: str, value: float, words: str) -> None:
    assert value_words(metric, value) == words
