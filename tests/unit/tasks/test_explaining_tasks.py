"""What is said of a task in every state and circumstance, word for word."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fleetwright.v1 import delivery_service_pb2 as pb2
from fleetwright.v1 import task_service_pb2
from hypothesis import given
from hypothesis import strategies as st

from controlplane.tasks.explaining.rules import Code, TaskFacts, explain_task
from controlplane.tasks.explaining.rules.said import at, length
from tests.unit.tasks.explaining_facts import (
    AGO_60,
    AGO_120,
    AGO_3600,
    ASKED,
    ATTEMPT,
    BY_DEADLINE,
    CANCELLING,
    EXPIRES,
    FAILED,
    GONE,
    HANDED,
    IN_3600,
    JOURNALED,
    LAST_FAILED,
    LATER,
    LATEST,
    LEASE_ENDS,
    LEASED,
    NEVER,
    NOW,
    OFFLINE,
    ONLINE,
    RUNNING,
    RUNS,
    SECOND,
    STALE,
    TASK,
    Circumstance,
    check_in_circumstance,
    circumstances,
    words,
)

CASES: dict[str, tuple[TaskFacts, list[str], list[str]]] = {
    "queued, next in line": (
        TASK,
        [f"It is the next one for agents/web-1, which is ONLINE since {AGO_3600}."],
        ["It is sent as soon as the agent can take it.", EXPIRES],
    ),
    "queued, agent offline": (
        replace(TASK, agent=OFFLINE),
        [GONE],
        ["It is sent when agents/web-1 comes back.", EXPIRES],
    ),
    "queued, agent stale": (
        replace(TASK, agent=STALE),
        [f"agents/web-1 is STALE since {AGO_120}: connection reset."],
        ["It is sent when agents/web-1 comes back.", EXPIRES],
    ),
    "queued, agent never came": (
        replace(TASK, agent=NEVER),
        [f"agents/web-1 is enrolled since {AGO_120} and has never connected."],
        ["It is sent when agents/web-1 comes back.", EXPIRES],
    ),
    "queued, agent deleted": (replace(TASK, agent=None), ["agents/web-1 is deleted."], [EXPIRES]),
    "queued, retry due later": (
        replace(
            TASK, not_before=NOW + 5 * SECOND, attempt_count=1, failed_count=1, max_attempts=3, last=FAILED
        ),
        [
            "Attempt 2 is not begun before 2023-11-14 22:13:25Z (in 5 s), so as not to hurry.",
            LAST_FAILED,
        ],
        [
            "It is sent as soon as the agent can take it, not before 2023-11-14 22:13:25Z (in 5 s).",
            EXPIRES,
        ],
    ),
    "queued, retry due later, agent offline": (
        replace(TASK, not_before=NOW + 5 * SECOND, attempt_count=1, last=FAILED, agent=OFFLINE),
        [
            GONE,
            "Attempt 2 is not begun before 2023-11-14 22:13:25Z (in 5 s), so as not to hurry.",
            LAST_FAILED,
        ],
        ["It is sent when agents/web-1 comes back, not before 2023-11-14 22:13:25Z (in 5 s).", EXPIRES],
    ),
    "queued for a time after its expiry": (
        replace(TASK, not_before=NOW + 7_200 * SECOND),
        ["It is not begun before 2023-11-15 00:13:20Z (in 2 h)."],
        [EXPIRES],
    ),
    "queued behind others": (
        replace(TASK, ahead=3),
        ["3 tasks go to the agent before it, of a higher priority or created earlier."],
        ["It is sent as soon as the agent can take it, after those that go before it.", EXPIRES],
    ),
    "queued behind one, agent busy": (
        replace(TASK, ahead=1, in_hand=2),
        [
            "1 task goes to the agent before it, of a higher priority or created earlier.",
            "The agent has 2 other attempts in hand; it takes more as it gets through them.",
        ],
        ["It is sent as soon as the agent can take it, after those that go before it.", EXPIRES],
    ),
    "queued, agent busy": (
        replace(TASK, in_hand=1),
        ["The agent has 1 other attempt in hand; it takes more as it gets through them."],
        ["It is sent as soon as the agent can take it.", EXPIRES],
    ),
    "queued, kind not taken": (
        replace(TASK, kind="logs"),
        [
            f"It is the next one for agents/web-1, which is ONLINE since {AGO_3600}.",
            "The agent takes echo, script, and this is logs: it will refuse it.",
        ],
        ["It is sent as soon as the agent can take it.", EXPIRES],
    ),
    "queued, expiry passed": (
        replace(TASK, expire_time=NOW - SECOND, agent=OFFLINE),
        ["It was not begun by 2023-11-14 22:13:19Z (1 s ago).", GONE],
        ["The next sweep, within seconds, ends it as EXPIRED."],
    ),
    "queued after a lapse": (
        replace(
            TASK,
            attempt_count=1,
            state_reason="the agent left before it took it",
            last=replace(ATTEMPT, state="LAPSED", end_time=NOW - 2 * SECOND),
            agent=OFFLINE,
        ),
        [
            GONE,
            "Attempt 1 was never taken, and its lease ended at 2023-11-14 22:13:18Z (2 s ago): the agent "
            "left before it took it.",
        ],
        ["It is sent when agents/web-1 comes back.", EXPIRES],
    ),
    "queued after an interruption": (
        replace(
            TASK,
            attempt_count=1,
            state_reason="the agent came back without its journal",
            last=replace(ATTEMPT, state="ABANDONED", end_time=NOW - 2 * SECOND),
        ),
        [
            f"It is the next one for agents/web-1, which is ONLINE since {AGO_3600}.",
            "Attempt 1 was given up without a result at 2023-11-14 22:13:18Z (2 s ago): the agent came back "
            "without its journal.",
        ],
        ["It is sent as soon as the agent can take it.", EXPIRES],
    ),
    "leased, sent, not journalled": (
        replace(LEASED, sent_time=NOW - 10 * SECOND),
        [
            HANDED,
            "It was sent at 2023-11-14 22:13:10Z (10 s ago), and the agent has not said that it is in its "
            "journal.",
            "That session is alive, so the attempt stays with it, and nothing runs twice.",
        ],
        ["It is RUNNING once the agent says that it is in its journal.", EXPIRES],
    ),
    "leased, not known to be sent": (
        LEASED,
        [HANDED, "That session is alive, so the attempt stays with it, and nothing runs twice."],
        ["It is RUNNING once the agent says that it is in its journal.", EXPIRES],
    ),
    "leased, agent offline": (
        replace(LEASED, agent=OFFLINE),
        [HANDED, GONE],
        [
            f"{LEASE_ENDS} it is queued again, unless the agent takes it.",
            EXPIRES,
        ],
    ),
    "leased, agent offline, lease over": (
        replace(LEASED, agent=OFFLINE, current=replace(ATTEMPT, lease_expire_time=NOW - SECOND)),
        [HANDED, GONE],
        ["The lease is over: by the next sweep, within seconds, it is queued again.", EXPIRES],
    ),
    "leased, agent offline, expires before the lease": (
        replace(LEASED, agent=OFFLINE, expire_time=NOW + 10 * SECOND),
        [HANDED, GONE],
        ["Unless it is begun by 2023-11-14 22:13:30Z (in 10 s), it ends as EXPIRED."],
    ),
    "leased, agent in a newer session": (
        replace(LEASED, agent=replace(ONLINE, session_epoch=7)),
        [
            HANDED,
            "The agent has had session 7 since, and asks there for what it was handed and did not take.",
        ],
        [
            f"{LEASE_ENDS} it is queued again, unless the agent takes it.",
            EXPIRES,
        ],
    ),
    "leased, agent deleted": (
        replace(LEASED, agent=None),
        [HANDED],
        [
            f"{LEASE_ENDS} it is queued again, unless the agent takes it.",
            EXPIRES,
        ],
    ),
    "leased, cancel asked, agent online": (
        replace(LEASED, **CANCELLING),
        [HANDED, ASKED, "That session is alive, so the attempt stays with it, and nothing runs twice."],
        [
            "The agent is asked to stop it, and what it answers decides.",
            f"Unless it is begun by {IN_3600}, it ends as CANCELLED.",
        ],
    ),
    "leased, cancel asked, agent offline": (
        replace(LEASED, agent=OFFLINE, **CANCELLING),
        [HANDED, ASKED, GONE],
        [
            f"{LEASE_ENDS} it ends as CANCELLED, unless the agent takes it.",
        ],
    ),
    "leased, expiry passed": (
        replace(LEASED, expire_time=NOW - SECOND),
        [HANDED, "That session is alive, so the attempt stays with it, and nothing runs twice."],
        ["The next sweep, within seconds, ends it as EXPIRED."],
    ),
    "leased, attempt not known": (
        replace(LEASED, current=None),
        ["It was handed to agents/web-1."],
        ["It is RUNNING once the agent says that it is in its journal.", EXPIRES],
    ),
    "running": (
        RUNNING,
        [JOURNALED],
        ["The agent's result decides.", f"{BY_DEADLINE} it ends as FAILED."],
    ),
    "running, with progress": (
        replace(RUNNING, progress_percent=40, progress_message="copying"),
        [JOURNALED, "The agent says that it is at 40 %: copying."],
        ["The agent's result decides.", f"{BY_DEADLINE} it ends as FAILED."],
    ),
    "running, agent offline": (
        replace(RUNNING, agent=OFFLINE),
        [JOURNALED, f"{GONE[:-1]}; it goes on by itself and reports when it is back."],
        [
            "The agent's result decides, as soon as it is back.",
            f"{BY_DEADLINE} it ends as FAILED.",
        ],
    ),
    "running, cancel asked, agent online": (
        replace(RUNNING, **CANCELLING),
        [JOURNALED, ASKED],
        [
            "The agent is asked to stop it, and its result decides.",
            f"{BY_DEADLINE} it ends as CANCELLED.",
        ],
    ),
    "running, cancel asked, agent offline": (
        replace(RUNNING, agent=OFFLINE, **CANCELLING),
        [JOURNALED, ASKED, f"{GONE[:-1]}; it goes on by itself and reports when it is back."],
        [
            "The agent is asked to stop it when it comes back, and its result decides.",
            f"{BY_DEADLINE} it ends as CANCELLED.",
        ],
    ),
    "running, may be tried again": (
        replace(RUNNING, idempotent=True, max_attempts=3),
        [JOURNALED],
        [
            "The agent's result decides.",
            f"{BY_DEADLINE} the attempt is given up and it is tried again.",
        ],
    ),
    "running, its last attempt": (
        replace(RUNNING, idempotent=True, max_attempts=3, failed_count=2),
        [JOURNALED],
        ["The agent's result decides.", f"{BY_DEADLINE} it ends as DEAD."],
    ),
    "running, deadline passed": (
        replace(RUNNING, current=replace(RUNS, run_deadline=NOW - SECOND)),
        [JOURNALED, "Its time was over at 2023-11-14 22:13:19Z (1 s ago)."],
        ["By the next sweep, within seconds, it ends as FAILED."],
    ),
    "running, attempt not known": (
        replace(RUNNING, current=None),
        [f"It is in the journal of agents/web-1 since {AGO_60}."],
        ["The agent's result decides."],
    ),
}
FINAL = ["Nothing: the state is final. The task is deleted once its retention is over."]
SUCCEEDED = replace(FAILED, outcome="SUCCEEDED", reason="")


def over(state: str, **changes: Any) -> TaskFacts:
    return replace(TASK, state=state, attempt_count=1, last=FAILED, **changes)


CASES |= {
    "succeeded": (
        over("SUCCEEDED", decided=SUCCEEDED),
        ["Attempt 1 reported SUCCEEDED at 2023-11-14 22:13:18Z (2 s ago)."],
        FINAL,
    ),
    "succeeded before it was cancelled": (
        over("SUCCEEDED", decided=SUCCEEDED, **CANCELLING),
        [
            "Attempt 1 reported SUCCEEDED at 2023-11-14 22:13:18Z (2 s ago).",
            f"{ASKED[:-1]}; it ended in another way before.",
        ],
        FINAL,
    ),
    "failed by a result": (over("FAILED", decided=FAILED), [LAST_FAILED], FINAL),
    "failed by the server": (
        over("FAILED", state_reason="timed out: no result arrived within the run limit"),
        ["No result decided: timed out: no result arrived within the run limit."],
        FINAL,
    ),
    "dead": (
        over("DEAD", decided=FAILED, failed_count=3, max_attempts=3),
        [LAST_FAILED, "3 attempts failed of at most 3, after 1 begun."],
        FINAL,
    ),
    "interrupted": (
        over("INTERRUPTED", state_reason="the agent came back without its journal"),
        [
            "No result decided: the agent came back without its journal.",
            "Whether it had an effect is not known, and it was not declared idempotent, so it was not run "
            "again.",
        ],
        FINAL,
    ),
    "cancelled": (
        over("CANCELLED", state_reason="cancelled by spiffe://x/operator/ada", cancel_requested=True),
        ["No result decided: cancelled by spiffe://x/operator/ada."],
        FINAL,
    ),
    "cancelled by the agent": (
        over("CANCELLED", decided=replace(FAILED, outcome="CANCELLED", reason=""), **CANCELLING),
        ["Attempt 1 reported CANCELLED at 2023-11-14 22:13:18Z (2 s ago)."],
        FINAL,
    ),
    "expired": (
        replace(
            TASK,
            state="EXPIRED",
            state_reason="expired: its agent did not take it in time",
            agent=OFFLINE,
        ),
        ["No result decided: expired: its agent did not take it in time.", GONE],
        FINAL,
    ),
    "skipped": (
        replace(
            TASK,
            state="SKIPPED",
            state_reason="skipped: its agent went offline before it took it",
            agent=OFFLINE,
            offline_policy="SKIP",
        ),
        ["No result decided: skipped: its agent went offline before it took it.", GONE],
        FINAL,
    ),
    "superseded": (
        replace(
            LATEST,
            state="SUPERSEDED",
            state_reason="superseded: a later task of its key was created",
            superseded=True,
            has_later=True,
        ),
        ["No result decided: superseded: a later task of its key was created."],
        FINAL,
    ),
    "superseded instead of tried again": (
        over("SUPERSEDED", decided=FAILED, superseded=True, has_later=True, supersede_key="sshd"),
        [LAST_FAILED, LATER],
        FINAL,
    ),
    "dead, replayed": (
        over("DEAD", decided=FAILED, failed_count=3, max_attempts=3, replayed_as="t9"),
        [
            LAST_FAILED,
            "3 attempts failed of at most 3, after 1 begun.",
            "It was done anew as tasks/t9.",
        ],
        FINAL,
    ),
    "a final state of a later version": (
        replace(TASK, state="VANISHED"),
        ["No result decided: the server ended it as VANISHED."],
        FINAL,
    ),
}


OUTPUT = "fleetwright tasks output tasks/t1"
REPLAY = "fleetwright tasks replay tasks/t1"
EVENTS = "fleetwright tasks events tasks/t1"


@pytest.mark.parametrize("case", CASES)
def test_a_task_is_explained_in_these_words(case: str) -> None:
    task, because, next_steps = CASES[case]
    explanation = explain_task(task, NOW)
    assert words(explanation) == (because, next_steps)
    assert explanation.since == task.state_time


def test_every_state_of_the_contract_has_its_words() -> None:
    states = {
        name.removeprefix("TASK_STATE_") for name, number in task_service_pb2.TaskState.items() if number
    }
    assert {task.state for task, _, _ in CASES.values()} >= states


@pytest.mark.parametrize(
    ("case", "commands"),
    {
        "queued, next in line": ["fleetwright tasks cancel tasks/t1"],
        "queued, agent offline": [
            "fleetwright explain agent web-1",
            "fleetwright tasks cancel tasks/t1",
        ],
        "queued behind others": [
            "fleetwright tasks list --agent web-1 --state QUEUED --state LEASED --state RUNNING",
            "fleetwright tasks cancel tasks/t1",
        ],
        "leased, agent offline": ["fleetwright explain agent web-1", "fleetwright tasks cancel tasks/t1"],
        "leased, cancel asked, agent online": ["fleetwright explain agent web-1"],
        "running": ["fleetwright tasks output tasks/t1", "fleetwright tasks cancel tasks/t1"],
        "running, cancel asked, agent offline": [
            "fleetwright tasks output tasks/t1",
            "fleetwright explain agent web-1",
        ],
        "failed by a result": [OUTPUT, REPLAY, "", EVENTS],
        "dead": [OUTPUT, REPLAY, "", EVENTS],
        "cancelled": [OUTPUT, REPLAY, EVENTS],
        "expired": [REPLAY, "", EVENTS],
        "interrupted": [OUTPUT, REPLAY, "", EVENTS],
        "skipped": ["fleetwright explain agent web-1", REPLAY, EVENTS],
        "superseded": [
            "fleetwright tasks list --agent web-1 --filter 'supersede_key = \"sshd\"'",
            EVENTS,
        ],
        "dead, replayed": [OUTPUT, "fleetwright explain task tasks/t9", "", EVENTS],
        "succeeded": [OUTPUT, EVENTS],
        "a final state of a later version": [EVENTS],
    }.items(),
)
def test_an_administrator_is_told_what_to_do(case: str, commands: list[str]) -> None:
    explanation = explain_task(CASES[case][0], NOW)
    assert [remedy.command for remedy in explanation.remedies] == commands


@given(task=st.sampled_from([task for task, _, _ in CASES.values()]), circumstance=circumstances)
def test_every_circumstance_has_a_reason_and_a_next_step_that_is_not_over(
    task: TaskFacts, circumstance: Circumstance
) -> None:
    check_in_circumstance(task, circumstance)


def test_codes_are_those_of_the_contract() -> None:
    theirs = {
        name.removeprefix("EXPLANATION_CODE_"): number
        for name, number in pb2.ExplanationCode.items()
        if number
    }
    assert {code.name: int(code) for code in Code} == theirs


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (42, "42 s"),
        (60, "1 min"),
        (190, "3 min 10 s"),
        (3_605, "1 h"),
        (3_720, "1 h 2 min"),
        (86_400 * 4 + 3 * 3_600, "4 d 3 h"),
        (86_403, "1 d"),
    ],
)
def test_a_duration_has_at_most_two_units_that_are_neighbours(seconds: float, text: str) -> None:
    assert length(int(seconds * SECOND)) == text


def test_an_instant_says_how_far_it_is() -> None:
    assert at(NOW, NOW) == "2023-11-14 22:13:20Z (0 s ago)"
    assert at(NOW + 90 * SECOND, NOW) == "2023-11-14 22:14:50Z (in 1 min 30 s)"
