"""Answers and files of a job that means harm."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from controlplane.packaging.isolation.guarding import Ended
from controlplane.packaging.isolation.protocol import Report
from controlplane.packaging.isolation.records import (
    FailureKind,
    IsolationFailed,
    IsolationLimits,
    IsolationSettings,
    Outcome,
    Usage,
)
from controlplane.packaging.isolation.running import outcome_of as outcome_of_ended
from tests.unit.packaging.isolation.attempts import attempt


@pytest.mark.parametrize("function", ["answer_what_is_no_json", "answer_a_number_that_is_none"])
async def test_an_answer_that_is_no_json_is_refused(settings: IsolationSettings, function: str) -> None:
    came = await attempt(settings, function)
    assert came.kind == "bad_result"
    assert "is no JSON" in came.message


async def test_an_answer_past_the_protocol_is_refused(settings: IsolationSettings) -> None:
    came = await attempt(settings, "answer_raw", {"text": "\xff no JSON at all"})
    assert came.kind == "bad_result"
    assert came.message == "the job's answer cannot be read: no JSON (UnicodeDecodeError)"


async def test_a_job_cannot_invent_facts(settings: IsolationSettings) -> None:
    forged = '{"facts": [["uid", true, "forged"]], "failure": "", "message": ""}\n'
    came = await attempt(settings, "answer_raw", {"text": forged})
    assert came.kind == "bad_result"
    assert "forged" not in came.details.values()


def outcome_of(answer: bytes) -> object:
    report = Report((), Usage(timedelta(), timedelta(), 0), 0)
    return outcome_of_ended(Ended(report, answer, ()), IsolationLimits())


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"[1]", "neither a value nor an error"),
        (b"{}", "neither a value nor an error"),
        (b'{"value": 1, "error": {}}', "neither a value nor an error"),
        (b'{"error": 3}', "an error without fields"),
        (b'{"error": {"code": 1, "member": "", "message": ""}}', "without code, member and message"),
        (b'{"value": NaN}', "no JSON"),
        (b'{"value": "\\ud800"}', "half of a surrogate pair"),
        (b'{"value": ' + b"[" * 200_000, "nested too deep"),
        (b'{"value": ' + b"9" * 10_000 + b"}", "no JSON"),
        (b'{"failed": "nonsense", "message": ""}', "a failure that a job cannot have"),
        (b'{"failed": "not_isolated", "message": "x"}', "a failure that a job cannot have"),
        (b'{"failed": ["memory"], "message": "x"}', "a failure that a job cannot have"),
        (b'{"failed": "memory"}', "a failure that a job cannot have"),
        (b'{"error": {"code": "A", "member": "", "message": "%s"}}' % (b"x" * 2_001), "too long"),
    ],
)
def test_an_answer_of_another_shape_is_refused(answer: bytes, message: str) -> None:
    with pytest.raises(IsolationFailed, match=message) as caught:
        outcome_of(answer)
    assert caught.value.kind is FailureKind.BAD_RESULT


@given(st.binary(min_size=1, max_size=200))
@example(b'{"value": 1}')
@example(b'{"failed": "memory"}')
@example(b'{"failed": ["memory"]}')
def test_whatever_is_answered_is_a_value_or_a_failure_of_ours(answer: bytes) -> None:
    with suppress(IsolationFailed):
        assert isinstance(outcome_of(answer), Outcome)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("link_out", {"target": "/etc/passwd"}, "link: is a link that leads out of the folder"),
        ("link_out", {"target": "../in"}, "link: is a link that leads out of the folder"),
        ("make_a_pipe", {}, "pipe: is neither a file nor a folder nor a link"),
        ("name_twice", {}, "has a second name"),
        ("dig", {"depth": 150}, "at most 100"),
    ],
)
async def test_files_that_are_a_trap_are_not_taken_over(
    settings: IsolationSettings, tmp_path: Path, function: str, arguments: dict[str, object], message: str
) -> None:
    came = await attempt(settings, function, arguments, outputs=tmp_path / "result")
    assert came.kind == "bad_result"
    assert message in came.message
    assert not (tmp_path / "result").exists()
    assert list(settings.scratch_root.iterdir()) == []


async def test_what_a_failed_job_left_is_not_taken_over(settings: IsolationSettings, tmp_path: Path) -> None:
    came = await attempt(settings, "write_and_fail", outputs=tmp_path / "result")
    assert came.code == "TRUNCATED"
    assert not (tmp_path / "result").exists()


async def test_a_job_that_answers_and_ends_badly_has_no_outcome(settings: IsolationSettings) -> None:
    came = await attempt(settings, "answer_raw", {"text": '{"value": 1}', "status": 3})
    assert (came.kind, came.value) == ("killed", None)


async def test_a_link_that_stays_inside_is_taken_over(settings: IsolationSettings, tmp_path: Path) -> None:
    await attempt(settings, "link_out", {"target": "beside"}, outputs=tmp_path / "result")
    assert (tmp_path / "result" / "link").readlink() == Path("beside")


async def test_set_user_id_is_not_taken_over(settings: IsolationSettings, tmp_path: Path) -> None:
    await attempt(settings, "make_set_user_id", outputs=tmp_path / "result")
    found = (tmp_path / "result" / "tool").stat()
    assert stat.S_IMODE(found.st_mode) == 0o755
    assert found.st_uid == os.geteuid()


async def test_a_folder_closed_to_its_owner_is_taken_over(
    settings: IsolationSettings, tmp_path: Path
) -> None:
    await attempt(settings, "close_a_folder", outputs=tmp_path / "result")
    assert (tmp_path / "result" / "closed" / "inner" / "file").read_text(encoding="utf-8") == "x"


@pytest.mark.parametrize(("function", "arguments"), [("dig", {"depth": 900}), ("close_a_folder", {})])
async def test_no_scratch_folder_is_too_odd_to_be_removed(
    settings: IsolationSettings, function: str, arguments: dict[str, object]
) -> None:
    await attempt(settings, function, arguments)
    assert list(settings.scratch_root.iterdir()) == []


async def test_an_output_that_exists_is_not_written_over(settings: IsolationSettings, tmp_path: Path) -> None:
    (tmp_path / "result").mkdir()
    came = await attempt(settings, "write_output", {"name": "a", "text": ""}, outputs=tmp_path / "result")
    assert came.kind == "not_started"
    assert "exists already" in came.message
    assert list((tmp_path / "result").iterdir()) == []
