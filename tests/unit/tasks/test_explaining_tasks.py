"""What is said of a task in every state and circumstance, word for word."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fleetwright.v1 import delivery_service_pb2 as pb2
from fleetwright.v1 import task_service_pb2
from hypothesis import given
from hypothesis import strategies as st

from controlplane.tasks.explaining.rules import (
    AgentFacts,
    AttemptFacts,
    Code,
    Explanation,
    TaskFacts,
    explain_task,
)
from controlplane.tasks.explaining.rules.said import at, length

SECOND = 1_000_000
NOW = 1_700_000_000 * SECOND  # 2023-11-14 22:13:20 UTC

ONLINE = AgentFacts(
    agent_id="web-1",
    presence="ONLINE",
    presence_time=NOW - 3_600 * SECOND,
    presence_reason="SESSION_OPENED",
    presence_detail="",
    last_seen_time=NOW - 4 * SECOND,
    session_epoch=5,
    journal_id="j-1",
    task_kinds=("echo", "script"),
    suspected_clone=False,
    certificate_expire_time=NOW + 86_400 * SECOND,
    clock_offset=0,
    stale_after=45 * SECOND,
    offline_after=180 * SECOND,
)
OFFLINE = replace(
    ONLINE,
    presence="OFFLINE",
    presence_reason="GOODBYE",
    presence_time=NOW - 120 * SECOND,
    last_seen_time=NOW - 120 * SECOND,
)
STALE = replace(OFFLINE, presence="STALE", presence_reason="STREAM_LOST", presence_detail="connection reset")
NEVER = replace(OFFLINE, presence_reason="NEVER_CONNECTED", last_seen_time=None, session_epoch=0)

ATTEMPT = AttemptFacts(
    attempt_id="a-1",
    number=1,
    state="LEASED",
    session_epoch=5,
    lease_time=NOW - 10 * SECOND,
    lease_expire_time=NOW + 20 * SECOND,
    accept_time=None,
    run_deadline=None,
    end_time=None,
    outcome="",
    reason="",
)
TASK = TaskFacts(
    task_id="t1",
    agent_id="web-1",
    kind="script",
    state="QUEUED",
    state_time=NOW - 60 * SECOND,
    state_reason="",
    cancel_requested=False,
    idempotent=False,
    max_attempts=1,
    attempt_count=0,
    failed_count=0,
    progress_percent=0,
    progress_message="",
    expire_time=NOW + 3_600 * SECOND,
    not_before=NOW - 60 * SECOND,
    agent=ONLINE,
)
FAILED = replace(
    ATTEMPT, state="FINISHED", end_time=NOW - 2 * SECOND, outcome="FAILED", reason="exit status 3"
)
RUNS = replace(
    ATTEMPT,
    state="RUNNING",
    accept_time=NOW - 9 * SECOND,
    run_deadline=NOW + 660 * SECOND,
)
LEASED = replace(TASK, state="LEASED", attempt_count=1, current=ATTEMPT, last=ATTEMPT)
RUNNING = replace(LEASED, state="RUNNING", current=RUNS, last=RUNS)
CANCELLING: dict[str, Any] = {
    "cancel_requested": True,
    "cancel_time": NOW - 5 * SECOND,
    "cancel_detail": "cancelled by spiffe://x/operator/ada",
}

AGO_60 = "2023-11-14 22:12:20Z (1 min ago)"
AGO_120 = "2023-11-14 22:11:20Z (2 min ago)"
AGO_3600 = "2023-11-14 21:13:20Z (1 h ago)"
IN_3600 = "2023-11-14 23:13:20Z (in 1 h)"
EXPIRES = f"Unless it is begun by {IN_3600}, it ends as EXPIRED."
GONE = f"agents/web-1 is OFFLINE since {AGO_120}: it said Goodbye."
HANDED = "Attempt 1 was handed to session 5 of agents/web-1 at 2023-11-14 22:13:10Z (10 s ago)."
ASKED = (
    "Its cancellation was asked for at 2023-11-14 22:13:15Z (5 s ago): cancelled by spiffe://x/operator/ada."
)
JOURNALED = "Attempt 1 is in the journal of agents/web-1 since 2023-11-14 22:13:11Z (9 s ago)."
BY_DEADLINE = "Without a result by 2023-11-14 22:24:20Z (in 11 min),"
LEASE_ENDS = "The lease ends at 2023-11-14 22:13:40Z (in 20 s):"
LAST_FAILED = "Attempt 1 reported FAILED at 2023-11-14 22:13:18Z (2 s ago): exit status 3."

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
    "queued for a window": (
        replace(TASK, not_before=NOW + 60 * SECOND, state_reason="waits for its window."),
        ["It is not begun before 2023-11-14 22:14:20Z (in 1 min): waits for its window."],
        [
            "It is sent as soon as the agent can take it, not before 2023-11-14 22:14:20Z (in 1 min).",
            EXPIRES,
        ],
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
        ["The agent is asked to stop it, and what it answers decides.", EXPIRES],
    ),
    "leased, cancel asked, agent offline": (
        replace(LEASED, agent=OFFLINE, **CANCELLING),
        [HANDED, ASKED, GONE],
        [
            f"{LEASE_ENDS} it ends as CANCELLED, unless the agent takes it.",
            EXPIRES,
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
        replace(TASK, state="SKIPPED", state_reason="its agent was offline.", agent=OFFLINE),
        ["No result decided: its agent was offline.", GONE],
        FINAL,
    ),
    "superseded": (
        replace(TASK, state="SUPERSEDED", state_reason="tasks/t2 took its place"),
        ["No result decided: tasks/t2 took its place."],
        FINAL,
    ),
    "a final state of a later version": (
        replace(TASK, state="VANISHED"),
        ["No result decided: the server ended it as VANISHED."],
        FINAL,
    ),
}


def words(explanation: Explanation) -> tuple[list[str], list[str]]:
    return (
        [sentence.text for sentence in explanation.because],
        [step.text for step in explanation.next_steps],
    )


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
        "failed by a result": ["fleetwright tasks output tasks/t1", "", "fleetwright tasks events tasks/t1"],
        "expired": ["", "fleetwright tasks events tasks/t1"],
        "interrupted": ["fleetwright tasks output tasks/t1", "", "fleetwright tasks events tasks/t1"],
    }.items(),
)
def test_an_administrator_is_told_what_to_do(case: str, commands: list[str]) -> None:
    explanation = explain_task(CASES[case][0], NOW)
    assert [remedy.command for remedy in explanation.remedies] == commands


@given(
    task=st.sampled_from([task for task, _, _ in CASES.values()]),
    agent=st.sampled_from([ONLINE, OFFLINE, STALE, NEVER, None]),
    expires=st.integers(-10, 10),
    not_before=st.integers(-10, 10),
    lease=st.integers(-10, 10),
    cancel=st.booleans(),
)
def test_every_circumstance_has_a_reason_and_a_next_step_that_is_not_over(
    task: TaskFacts, agent: AgentFacts | None, expires: int, not_before: int, lease: int, cancel: bool
) -> None:
    current = task.current and replace(task.current, lease_expire_time=NOW + lease * SECOND)
    asked = replace(
        task,
        agent=agent,
        expire_time=NOW + expires * SECOND,
        not_before=NOW + not_before * SECOND,
        current=current,
        cancel_requested=cancel,
    )
    explanation = explain_task(asked, NOW)
    assert explanation.because
    assert explanation.next_steps
    known = [step.latest for step in explanation.next_steps if step.latest is not None]
    assert all(latest >= NOW for latest in known)
    if task.state == "QUEUED" and agent is not None and not_before >= expires > 0:
        assert {step.code for step in explanation.next_steps} == {Code.EXPIRES}


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
