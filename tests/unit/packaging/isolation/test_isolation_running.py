"""What an honest job gets, and what is known of it afterwards."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from controlplane.packaging.isolation.functions import FUNCTIONS, target_of
from controlplane.packaging.isolation.records import (
    FactName,
    FailureKind,
    IsolationFailed,
    IsolationLimits,
    IsolationSettings,
    Job,
    unheld,
)
from controlplane.packaging.isolation.running import run
from tests.unit.packaging.isolation.attempts import SMALL, attempt, call


async def test_a_function_gets_its_arguments_and_gives_its_answer(settings: IsolationSettings) -> None:
    given = {"text": "a\u2028ü", "numbers": [1, 2.5, -3], "nothing": None, "deep": {"a": {"b": [True]}}}
    assert (await call(settings, "echo", given)).value == given


async def test_a_job_reads_its_inputs_by_name(settings: IsolationSettings, tmp_path: Path) -> None:
    source = tmp_path / "artefact"
    source.write_text("of the server", encoding="utf-8")
    source.chmod(0o600)
    outcome = await call(settings, "read_input", {"name": "it"}, inputs={"it": source})
    assert outcome.value == "of the server"


async def test_a_folder_is_an_input_too(settings: IsolationSettings, tmp_path: Path) -> None:
    (tmp_path / "tree" / "a" / "b").mkdir(parents=True, mode=0o700)
    (tmp_path / "tree" / "a" / "b" / "file").write_text("x", encoding="utf-8")
    (tmp_path / "tree" / "link").symlink_to("a/b")
    outcome = await call(settings, "list_inputs", inputs={"tree": tmp_path / "tree"})
    assert outcome.value == ["in/tree", "in/tree/a", "in/tree/a/b", "in/tree/a/b/file", "in/tree/link"]


@pytest.mark.parametrize("mode", [0o600, 0o644])
async def test_an_input_stays_what_it_is_whatever_the_job_does(
    settings: IsolationSettings, tmp_path: Path, mode: int
) -> None:
    source = tmp_path / "artefact"
    source.write_text("of the server", encoding="utf-8")
    source.chmod(mode)
    await call(settings, "change_input", {"name": "it"}, inputs={"it": source})
    assert source.read_text(encoding="utf-8") == "of the server"
    assert source.stat().st_mode & 0o777 == mode


async def test_what_a_job_leaves_in_out_is_taken_over(settings: IsolationSettings, tmp_path: Path) -> None:
    given = {"name": "a/file", "text": "made"}
    await call(settings, "write_output", given, outputs=tmp_path / "result")
    made = tmp_path / "result" / "a" / "file"
    assert made.read_text(encoding="utf-8") == "made"
    assert made.stat().st_uid == os.geteuid()
    assert made.stat().st_mode & 0o777 == 0o644


async def test_temporary_files_go_into_the_scratch_folder(settings: IsolationSettings) -> None:
    value = (await call(settings, "use_a_temporary_file")).value
    assert isinstance(value, str)
    assert value.startswith("tmp/")


async def test_modules_can_be_imported_late(settings: IsolationSettings) -> None:
    assert (await call(settings, "import_lazily")).value == ["decimal", "sqlite3"]


async def test_nothing_of_the_server_is_loaded_into_a_job(settings: IsolationSettings) -> None:
    assert (await call(settings, "modules_of_ours")).value == []


async def test_what_a_job_used_is_known(settings: IsolationSettings) -> None:
    usage = (await call(settings, "echo")).usage
    assert timedelta() < usage.wall < timedelta(seconds=20)
    assert timedelta() <= usage.cpu < timedelta(seconds=2)
    assert 1 << 20 < usage.memory_bytes < SMALL.memory_bytes


async def test_every_fact_is_told_once_with_a_word_on_it(settings: IsolationSettings) -> None:
    outcome = await call(settings, "echo")
    assert [fact.name for fact in outcome.facts] == list(FactName)
    assert all(fact.detail for fact in outcome.facts)
    assert {fact.name for fact in unheld(outcome.facts)}.isdisjoint(
        {FactName.MEMORY, FactName.CPU, FactName.FILES, FactName.NO_NEW_PRIVS, FactName.ENVIRONMENT}
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can have jobs run as another user")
async def test_a_server_that_is_root_runs_jobs_as_nobody(settings: IsolationSettings) -> None:
    value = (await call(IsolationSettings(scratch_root=settings.scratch_root), "whoami")).value
    assert isinstance(value, dict)
    assert (value["uid"], value["gid"], value["groups"]) == (65534, 65534, [])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can have jobs run as another user")
async def test_jobs_can_be_spread_over_users(settings: IsolationSettings) -> None:
    spread = replace(settings, uid=70_000, uids=1_000_000)
    values = [(await call(spread, "whoami")).value for _ in range(2)]
    users = [value["uid"] for value in values if isinstance(value, dict)]
    assert all(isinstance(user, int) and 70_000 <= user < 1_070_000 for user in users)
    assert users[0] != users[1], "by a chance of one in a million"


async def test_a_job_sees_no_variable_of_the_server(
    settings: IsolationSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEETWRIGHT_DATABASE_URL", "postgresql://secret")
    assert (await call(settings, "variables")).value == {"LC_ALL": "C.UTF-8"}


async def test_an_error_of_the_job_is_data(settings: IsolationSettings) -> None:
    error = (await call(settings, "fail_well")).error
    assert error is not None
    assert (error.code, error.member) == ("TRUNCATED", "data.tar/usr/bin/x")
    assert error.message == "the member ends early; upload the file again"


async def test_what_the_job_did_not_expect_reaches_the_log_alone(settings: IsolationSettings) -> None:
    came = await attempt(settings, "fail_badly")
    assert came.code == "UNEXPECTED"
    assert "an inner thing" not in came.message
    assert came.log[-1].startswith("ValueError: an inner thing (line ")
    assert not any("Traceback" in line for line in came.log)


@pytest.mark.parametrize("name", ["exit", "interrupt", "recursion"])
async def test_no_exception_of_python_gets_past_the_border(settings: IsolationSettings, name: str) -> None:
    assert (await attempt(settings, "fail_with", {"name": name})).code == "UNEXPECTED"


async def test_arguments_that_do_not_fit_the_function_are_its_error(settings: IsolationSettings) -> None:
    came = await attempt(settings, "read_input", {"nonsense": 1})
    assert came.code == "UNEXPECTED"
    assert "nonsense" in came.log[-1]


async def test_a_function_outside_of_the_table_is_not_called(settings: IsolationSettings) -> None:
    with pytest.raises(IsolationFailed, match="'os:system' is not in the table") as caught:
        await run(Job("os:system"), SMALL, settings=settings)
    assert caught.value.kind is FailureKind.NOT_ALLOWED
    assert not settings.scratch_root.exists()


@pytest.mark.parametrize("target", ["", "os", "os:", ":system", "os:path.join", "os system:x", "a..b:c"])
def test_a_row_that_names_no_function_is_refused(target: str) -> None:
    with pytest.raises(IsolationFailed, match=r"package\.module:function"):
        target_of("x", {"x": target})


def test_every_row_of_the_table_names_a_function() -> None:
    assert [target_of(name, FUNCTIONS) for name in FUNCTIONS] == list(FUNCTIONS.values())


@pytest.mark.parametrize(
    ("name", "message"),
    [("missing", "cannot be passed on: No such file"), ("../up", "is no name"), ("", "is no name")],
)
async def test_an_input_that_cannot_be_given_is_named(
    settings: IsolationSettings, tmp_path: Path, name: str, message: str
) -> None:
    came = await attempt(settings, "echo", inputs={name: tmp_path / "not there"})
    assert came.kind == "not_started"
    assert message in came.message
    assert list(settings.scratch_root.iterdir()) == []


async def test_arguments_that_are_no_json_are_refused(settings: IsolationSettings) -> None:
    came = await attempt(settings, "echo", {"what": object()})
    assert came.kind == "not_started"
    assert came.message.startswith("arguments: cannot be written as JSON")


async def test_arguments_that_are_too_long_are_to_be_an_input(settings: IsolationSettings) -> None:
    came = await attempt(settings, "echo", {"what": "x" * (5 << 20)})
    assert came.message.endswith("pass an input instead")


async def test_an_interpreter_that_is_missing_is_named(tmp_path: Path) -> None:
    settings = IsolationSettings(scratch_root=tmp_path / "scratch", interpreter=tmp_path / "python")
    came = await attempt(settings, "echo")
    assert came.kind == "not_started"
    assert "python cannot be started: No such file" in came.message


async def test_a_scratch_root_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    came = await attempt(IsolationSettings(scratch_root=tmp_path / "file" / "below"), "echo")
    assert came.kind == "not_started"
    assert "scratch_root" in came.message


async def test_without_a_required_fact_nothing_is_run(settings: IsolationSettings, tmp_path: Path) -> None:
    """The interpreter of the job is told to ask for what can never hold: memory of less than it has."""
    came = await attempt(
        IsolationSettings(scratch_root=settings.scratch_root, require=frozenset(FactName)), "echo"
    )
    if came.kind:
        assert came.kind == "not_isolated"
        assert all(name in came.message for name, held in came.facts.items() if not held)
        assert came.value is None
    else:
        assert all(came.facts.values())


@pytest.mark.parametrize(("name", "value"), [("wall", timedelta()), ("cpu", -timedelta(1)), ("processes", 0)])
def test_a_limit_of_nothing_is_refused(name: str, value: Any) -> None:
    given: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"limits.{name}: must be above zero"):
        IsolationLimits(**given)


def test_jobs_as_root_are_refused() -> None:
    with pytest.raises(ValueError, match="above zero"):
        IsolationSettings(scratch_root=Path("x"), uid=0)
