"""Where a deployment stands, by what its agent said and by its task."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.packaging.deployment.rules import (
    DeploymentStatus,
    Said,
    Standing,
    TaskStanding,
    Work,
    after,
    clean,
    ended,
)

S = DeploymentStatus
NEW = Standing(S.PENDING, 1)
WAITS = TaskStanding(Work.WAITS, "QUEUED", 5)
RUNS = TaskStanding(Work.RUNS, "RUNNING", 5)
DONE = TaskStanding(Work.ENDED, "SUCCEEDED", 5)


def failed(state: str = "FAILED", reason: str = "why") -> TaskStanding:
    return TaskStanding(Work.ENDED, state, 5, reason)


def result(outcome: str = "FAILED", status: int = S.FAILED, code: str = "", reason: str = "") -> Said:
    return Said(status, 9, outcome, reason, code)


def test_an_agent_that_goes_on_is_followed() -> None:
    standing = NEW
    for time, status in enumerate((S.DOWNLOADING, S.VERIFYING, S.INSTALLING), 2):
        standing = after(standing, RUNS, [Said(status, time)])
        assert standing == Standing(status, time)


def test_what_is_said_again_does_not_move_the_time() -> None:
    standing = Standing(S.DOWNLOADING, 2)
    assert after(standing, RUNS, [Said(S.DOWNLOADING, 8)]) is standing


@pytest.mark.parametrize("status", [0, S.INSTALLED, S.FAILED, S.ROLLED_BACK, 99])
def test_progress_says_no_end_and_nothing_unknown(status: int) -> None:
    assert after(NEW, RUNS, [Said(status, 8)]) == NEW


def test_success_is_installed() -> None:
    assert after(NEW, DONE, [result("SUCCEEDED", S.INSTALLED)]) == Standing(S.INSTALLED, 9)


def test_success_without_a_detail_is_installed() -> None:
    said = result("SUCCEEDED", 0, reason="no room for the detail")
    assert after(NEW, DONE, [said]) == Standing(S.INSTALLED, 9, "no room for the detail")


@pytest.mark.parametrize(
    ("outcome", "status", "expected", "code"),
    [
        ("SUCCEEDED", S.FAILED, S.FAILED, "CONTRADICTION"),
        ("SUCCEEDED", S.ROLLED_BACK, S.ROLLED_BACK, "CONTRADICTION"),
        ("SUCCEEDED", S.VERIFYING, S.FAILED, "CONTRADICTION"),
        ("FAILED", S.INSTALLED, S.FAILED, "FAILED"),
        ("INTERRUPTED", S.INSTALLED, S.FAILED, "INTERRUPTED"),
    ],
)
def test_an_agent_that_contradicts_itself_has_not_installed(
    outcome: str, status: DeploymentStatus, expected: DeploymentStatus, code: str
) -> None:
    found = ended(result(outcome, status))
    assert (found.status, found.reason_code) == (expected, code)


def test_the_code_of_a_failure_is_the_agents() -> None:
    said = result(code="METADATA_EXPIRED", reason="timestamp.json is too old")
    assert after(NEW, failed(), [said]) == Standing(
        S.FAILED, 9, "timestamp.json is too old", "METADATA_EXPIRED"
    )


@pytest.mark.parametrize("outcome", ["REFUSED", "TIMED_OUT", "CANCELLED", "INTERRUPTED"])
def test_without_a_code_the_outcome_is_it(outcome: str) -> None:
    assert after(NEW, failed(), [result(outcome, 0)]).reason_code == outcome


@pytest.mark.parametrize("code", ["lower", "WITH SPACE", "A\0B", "1ST"])
def test_a_code_that_is_no_word_is_kept_out(code: str) -> None:
    assert ended(result(code=code)).reason_code == "OTHER"


def test_what_is_rolled_back_says_so() -> None:
    assert ended(result(status=S.ROLLED_BACK, code="NOT_DETECTED")).status is S.ROLLED_BACK


@pytest.mark.parametrize("state", ["CANCELLED", "EXPIRED", "SKIPPED", "SUPERSEDED", "INTERRUPTED"])
def test_a_task_that_ended_without_a_word_failed_as_its_state_says(state: str) -> None:
    assert after(NEW, failed(state), []) == Standing(S.FAILED, 5, "why", state)


@pytest.mark.parametrize("state", ["FAILED", "DEAD"])
def test_a_task_that_the_server_gave_up_has_no_result(state: str) -> None:
    assert after(Standing(S.INSTALLING, 3), failed(state), []).reason_code == "NO_RESULT"


def test_a_late_result_stands_above_what_was_made_of_silence() -> None:
    given_up = after(Standing(S.INSTALLING, 3), failed(), [])
    assert after(given_up, failed(), [result("SUCCEEDED", S.INSTALLED)]).status is S.INSTALLED
    assert after(given_up, failed(), [result(code="NO_SPACE")]).reason_code == "NO_SPACE"


def test_an_installation_is_not_taken_back_by_another_attempt() -> None:
    assert after(Standing(S.INSTALLED, 3), DONE, [result(code="NO_SPACE")]) == Standing(S.INSTALLED, 3)


def test_one_that_is_tried_again_is_pending_and_says_why() -> None:
    found = after(Standing(S.VERIFYING, 3), WAITS, [result(code="DOWNLOAD_CUT", reason="no road")])
    assert found == Standing(S.PENDING, 5, "no road", "DOWNLOAD_CUT")
    assert after(found, WAITS, []) is found
    assert after(found, RUNS, [Said(S.DOWNLOADING, 11)]) == Standing(S.DOWNLOADING, 11)


def test_one_whose_agent_left_waits_again() -> None:
    left = TaskStanding(Work.WAITS, "QUEUED", 5, "the agent left")
    assert after(Standing(S.DOWNLOADING, 3), left, []) == Standing(S.PENDING, 5, "the agent left")


def test_the_failure_of_a_former_attempt_is_no_news_while_another_runs() -> None:
    running = Standing(S.INSTALLING, 3)
    assert after(running, RUNS, [result(code="NO_SPACE")]) is running


def test_words_are_fit_for_any_database() -> None:
    assert clean("a\0b") == "a\N{REPLACEMENT CHARACTER}b"
    assert len(clean("x" * 5_000)) == 2_048


STANDINGS = st.builds(Standing, st.sampled_from(DeploymentStatus), st.integers(0, 99), st.text(), st.just(""))
TASKS = st.one_of(
    st.just(WAITS),
    st.just(RUNS),
    st.just(DONE),
    st.sampled_from(["FAILED", "CANCELLED", "EXPIRED", "DEAD"]).map(failed),
)
SAID = st.builds(
    Said,
    st.integers(0, 9),
    st.integers(0, 99),
    st.sampled_from(["", "SUCCEEDED", "FAILED", "REFUSED", "INTERRUPTED"]),
    st.text(),
    st.text(max_size=64),
)


@given(STANDINGS, TASKS, st.lists(SAID, max_size=4))
def test_a_deployment_has_ended_exactly_when_its_task_has(
    standing: Standing, task: TaskStanding, said: list[Said]
) -> None:
    found = after(standing, task, said)
    assert found.status.final == (task.work is Work.ENDED)
    assert (found.reason_code == "") or found.reason_code.isascii()
    assert "\0" not in found.reason or found.reason == standing.reason


@given(STANDINGS, TASKS, st.lists(SAID, max_size=4))
def test_telling_it_again_changes_nothing(standing: Standing, task: TaskStanding, said: list[Said]) -> None:
    found = after(standing, task, said)
    assert after(found, task, []) == found
