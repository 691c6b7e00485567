"""Jobs that want more than they may have."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from controlplane.packaging.isolation.records import IsolationSettings
from tests.unit.packaging.isolation.attempts import SMALL, attempt

pytestmark = pytest.mark.slow

ONE_SECOND = replace(SMALL, cpu=timedelta(seconds=1))
SHORT = replace(SMALL, wall=timedelta(seconds=0.5))


async def test_a_memory_bomb_ends_at_its_limit(settings: IsolationSettings) -> None:
    came = await attempt(settings, "eat_memory")
    assert came.kind == "memory"
    assert str(SMALL.memory_bytes) in came.message


async def test_a_spinning_job_is_ended_by_its_processor_time(settings: IsolationSettings) -> None:
    came = await attempt(settings, "spin", limits=ONE_SECOND)
    assert (came.kind, came.message) == ("cpu", "the job was ended: used more than 1 s of processor time")


async def test_a_job_cannot_ignore_the_end_of_its_processor_time(settings: IsolationSettings) -> None:
    assert (await attempt(settings, "spin_without_listening", limits=ONE_SECOND)).kind == "cpu"


async def test_a_job_that_ignores_every_signal_is_ended_in_time(settings: IsolationSettings) -> None:
    came = await attempt(settings, "sleep_without_listening", limits=SHORT)
    assert (came.kind, came.message) == ("timeout", "the job was ended: took longer than 0.5 s")
    assert came.facts["no_new_privs"]


async def test_a_huge_file_ends_at_its_limit(settings: IsolationSettings) -> None:
    came = await attempt(settings, "fill_file", {"mebibytes": 64})
    assert came.kind == "too_much_output"
    assert "limit of one file" in came.message


async def test_many_files_of_allowed_size_are_too_much_together(settings: IsolationSettings) -> None:
    came = await attempt(settings, "fill_many_files", {"count": 20, "kibibytes": 1024})
    assert came.kind == "too_much_output"
    assert "scratch folder holds" in came.message


async def test_a_scratch_folder_that_grows_is_seen_while_the_job_runs(settings: IsolationSettings) -> None:
    came = await attempt(settings, "fill_and_wait", {"count": 20, "kibibytes": 1024})
    assert came.kind == "too_much_output"


async def test_many_small_files_are_too_many(settings: IsolationSettings) -> None:
    came = await attempt(settings, "fill_many_files", {"count": 1_100, "kibibytes": 0})
    assert came.kind == "too_much_output"
    assert "more than 1000 files" in came.message


async def test_an_input_counts_as_part_of_the_scratch_folder(
    settings: IsolationSettings, tmp_path: Path
) -> None:
    (tmp_path / "large").write_bytes(bytes(17 << 20))
    (tmp_path / "large").chmod(0o600)
    came = await attempt(settings, "echo", inputs={"large": tmp_path / "large"})
    assert came.kind == "too_much_output"


async def test_a_huge_answer_is_cut_off(settings: IsolationSettings) -> None:
    came = await attempt(settings, "answer_much", {"length": 2 << 20})
    assert came.kind == "too_much_output"
    assert "at most 1048576" in came.message


async def test_a_huge_answer_past_the_protocol_is_cut_off(settings: IsolationSettings) -> None:
    came = await attempt(settings, "answer_raw", {"text": "x" * 1024, "repeated": 4096})
    assert came.kind == "too_much_output"


async def test_of_a_huge_log_the_beginning_is_kept(settings: IsolationSettings) -> None:
    came = await attempt(settings, "say", {"lines": 50_000, "width": 500})
    assert came.value == 50_000
    assert len(came.log) == SMALL.log_lines + 1
    assert came.log[0] == "0:" + "x" * 77 + "…"
    assert came.log[-1] == "(49980 lines more were dropped)"


async def test_a_log_line_commands_no_terminal(settings: IsolationSettings) -> None:
    came = await attempt(settings, "say_raw", {"text": "\x1b[31mred\r\n\xff\x00\tb\x07"})
    assert came.log == ["\ufffd[31mred", "\ufffd\ufffd\tb\ufffd"]


async def test_files_can_be_opened_up_to_the_limit(settings: IsolationSettings) -> None:
    value = (await attempt(settings, "open_many", {"most": 10_000})).value
    assert value["error"] == "EMFILE"
    assert value["opened"] < SMALL.open_files


async def test_a_fork_bomb_ends_at_its_limit(settings: IsolationSettings) -> None:
    came = await attempt(settings, "fork_many", {"most": 200})
    if not came.facts["processes"]:
        pytest.skip(f"not counted here: {came.details['processes']}")
    assert came.value["error"] == "EAGAIN"
    assert came.value["started"] <= SMALL.processes + 1


async def test_limits_cannot_be_raised_again(settings: IsolationSettings) -> None:
    assert (await attempt(settings, "raise_limits")).value == []


@pytest.mark.parametrize("status", [0, 3])
async def test_a_job_that_just_ends_has_no_outcome(settings: IsolationSettings, status: int) -> None:
    came = await attempt(settings, "end_silently", {"status": status})
    assert (came.kind, came.message) == ("killed", f"the job ended without an answer (status {status})")


async def test_a_job_that_crashes_names_its_signal(settings: IsolationSettings) -> None:
    came = await attempt(settings, "crash")
    assert (came.kind, came.message) == ("killed", "the job was ended: ended by signal 11 (SIGSEGV)")
