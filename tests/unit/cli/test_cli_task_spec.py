"""From the words of ``fleetwright tasks create`` to the contract."""

from __future__ import annotations

import io
from datetime import timedelta
from pathlib import Path

import pytest
import typer
from fleetwright.v1 import task_service_pb2, work_pb2

from controlplane.cli.failures import CommandFailed
from controlplane.cli.tasks.spec import (
    SCRIPT_BYTES,
    Absence,
    Delivery,
    IfOffline,
    OtherDetails,
    ScriptDetails,
    Work,
    options,
    spec,
)


def made(
    work: Work, script: ScriptDetails | None = None, other: OtherDetails | None = None
) -> work_pb2.TaskSpec:
    return spec(work, script or ScriptDetails(), other or OtherDetails())


def test_a_script_is_run_by_sh_unless_something_else_is_said() -> None:
    assert made(Work(script="uname")).script == work_pb2.ScriptSpec(interpreter="sh", body="uname")
    assert made(Work(script="uname"), ScriptDetails(interpreter="bash")).script.interpreter == "bash"


@pytest.mark.parametrize(
    ("first_line", "interpreter"),
    [
        ("#!/bin/bash", "bash"),
        ("#!/usr/bin/env python3", "python3"),
        ("#!/usr/bin/env -S perl -w", "perl"),
        ("#! /bin/sh -e", "sh"),
        ("#!", "sh"),
        ("# a comment", "sh"),
        ("", "sh"),
    ],
)
def test_the_first_line_of_a_script_names_its_interpreter(first_line: str, interpreter: str) -> None:
    assert made(Work(script=f"{first_line}\nx")).script.interpreter == interpreter


def test_standard_input_is_not_the_script_and_its_variables_at_once() -> None:
    with pytest.raises(typer.BadParameter, match="--script-file - and --env-file -"):
        made(Work(script_file=Path("-")), ScriptDetails(environment_file=Path("-")))


def test_a_script_is_read_from_a_file_or_from_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mend.sh"
    file.write_text("echo ü\n", encoding="utf-8")
    assert made(Work(script_file=file)).script.body == "echo ü\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"id")))
    assert made(Work(script_file=Path("-"))).script.body == "id"


def test_a_script_that_is_too_large_or_no_text_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    file = tmp_path / "script"
    file.write_bytes(b"x" * (SCRIPT_BYTES + 1))
    with pytest.raises(CommandFailed, match=r"--script-file .*script: more than 262,144 bytes"):
        made(Work(script_file=file))
    file.write_bytes(b"ok\n\xff\xfe")
    with pytest.raises(CommandFailed, match=r"not UTF-8 text \(byte 3\)"):
        made(Work(script_file=file))


def test_variables_come_from_a_file_and_those_on_the_command_line_win(tmp_path: Path) -> None:
    file = tmp_path / "secrets.env"
    file.write_text("# of the test site\nA=1\nB='two words'\n\nC=x=y\n", encoding="utf-8")
    script = made(Work(script="env"), ScriptDetails(environment=("A=one",), environment_file=file)).script
    assert dict(script.environment) == {"A": "one", "B": "two words", "C": "x=y"}


@pytest.mark.parametrize("line", ["hunter2-is-secret", "A=b hunter2", "='hunter2'", "A='hunter2"])
def test_a_line_that_is_no_variable_is_named_by_its_number_and_not_shown(line: str, tmp_path: Path) -> None:
    file = tmp_path / "secrets.env"
    file.write_text(f"OK=1\n{line}\n", encoding="utf-8")
    with pytest.raises(typer.BadParameter, match="line 2") as caught:
        made(Work(script="env"), ScriptDetails(environment_file=file))
    assert "hunter2" not in str(caught.value)


def test_the_details_of_a_script_reach_the_contract() -> None:
    details = ScriptDetails(arguments=("--force", "a b"), user="web", time_limit="90s")
    script = made(Work(script="x"), details).script
    assert (list(script.arguments), script.user) == (["--force", "a b"], "web")
    assert script.time_limit.ToTimedelta() == timedelta(seconds=90)


def test_the_other_kinds_reach_the_contract() -> None:
    assert made(Work(echo="hi")).echo.payload == b"hi"
    assert made(Work(inventory=True), other=OtherDetails(packages=True)).inventory.include_packages
    logs = made(Work(logs="/var/log/syslog"), other=OtherDetails(contains="error", max_bytes=10)).logs
    assert (logs.path, logs.contains, logs.max_bytes) == ("/var/log/syslog", "error", 10)


@pytest.mark.parametrize(
    ("work", "said"),
    [
        (Work(), "there is none of them"),
        (Work(script="x", echo="y"), "there are --script, --echo"),
        (Work(script="x", script_file=Path("y")), "there are --script, --script-file"),
    ],
)
def test_exactly_one_kind_of_work_is_given(work: Work, said: str) -> None:
    with pytest.raises(typer.BadParameter, match=said):
        made(work)


@pytest.mark.parametrize(
    ("script", "other", "option"),
    [
        (ScriptDetails(arguments=("x",)), OtherDetails(), "--arg belongs to script"),
        (ScriptDetails(environment=("A=1",)), OtherDetails(), "--env belongs to script"),
        (ScriptDetails(user="x"), OtherDetails(), "--user belongs to script"),
        (ScriptDetails(), OtherDetails(packages=True), "--packages belongs to inventory"),
        (ScriptDetails(), OtherDetails(contains="x"), "--contains belongs to logs"),
    ],
)
def test_an_option_of_another_kind_of_work_is_refused(
    script: ScriptDetails, other: OtherDetails, option: str
) -> None:
    with pytest.raises(typer.BadParameter, match=f"{option} work, and this is echo"):
        made(Work(echo="x"), script, other)


def test_what_is_not_said_of_the_delivery_is_left_to_the_server() -> None:
    assert options(Delivery()).ByteSize() == 0
    chosen = options(Delivery(50, "1h", "5m", idempotent=True, max_attempts=3))
    assert (chosen.priority, chosen.idempotent, chosen.max_attempts) == (50, True, 3)
    assert chosen.queue_time.ToTimedelta() == timedelta(hours=1)
    assert chosen.run_limit.ToTimedelta() == timedelta(minutes=5)


def test_a_key_or_a_window_says_which_policy_is_meant() -> None:
    latest = options(Delivery(), Absence(supersede_key="sshd"))
    assert latest.offline_policy == task_service_pb2.OFFLINE_POLICY_LATEST
    windowed = options(Delivery(), Absence(window="0 2 * * SAT"))
    assert windowed.offline_policy == task_service_pb2.OFFLINE_POLICY_WINDOW
    assert (windowed.window.time_zone, windowed.window.duration.seconds) == ("UTC", 3_600)
    skip = options(Delivery(), Absence(IfOffline.SKIP))
    assert skip.offline_policy == task_service_pb2.OFFLINE_POLICY_SKIP


@pytest.mark.parametrize(
    ("absence", "said"),
    [
        (Absence(IfOffline.SKIP, supersede_key="k"), "--supersede-key belongs to --if-offline latest"),
        (Absence(IfOffline.LATEST), "needs --supersede-key"),
        (Absence(IfOffline.WINDOW), "needs --window"),
        (Absence(window_zone="UTC"), "needs --window"),
        (Absence(supersede_key="k", window="* * * * *"), "--window belongs to --if-offline window"),
    ],
)
def test_options_of_a_policy_that_do_not_fit_together_are_refused(absence: Absence, said: str) -> None:
    with pytest.raises(typer.BadParameter, match=said):
        options(Delivery(), absence)
