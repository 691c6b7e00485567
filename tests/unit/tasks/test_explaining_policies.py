"""What is said of a task by its offline policy, word for word."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.tasks.explaining.rules import TaskFacts, WindowFacts, explain_task
from tests.unit.tasks.explaining_facts import (
    AGO_120,
    AGO_3600,
    BY_DEADLINE,
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
    NOW,
    OFFLINE,
    ONLINE,
    RUNNING,
    SECOND,
    STALE,
    TASK,
    Circumstance,
    check_in_circumstance,
    circumstances,
    words,
)

HOUR = 3_600 * SECOND
SKIP = replace(TASK, offline_policy="SKIP")
OPEN = WindowFacts("0 22 * * *", "UTC", NOW - HOUR, NOW + 1_800 * SECOND, (NOW + 23 * HOUR, NOW + 25 * HOUR))
SHUT = replace(OPEN, begin=NOW + HOUR, end=NOW + 2 * HOUR)
OVER = replace(OPEN, begin=NOW - 2 * HOUR, end=NOW)
WINDOW = replace(
    TASK, offline_policy="WINDOW", expire_time=NOW + 48 * HOUR, not_before=OPEN.begin, window=OPEN
)
WAITING = replace(WINDOW, not_before=SHUT.begin, window=SHUT)
MISSED = replace(WINDOW, not_before=OVER.begin, window=OVER)
RETRIED: dict[str, Any] = {"attempt_count": 1, "failed_count": 1, "max_attempts": 3, "last": FAILED}

NEXT_IN_LINE = f"It is the next one for agents/web-1, which is ONLINE since {AGO_3600}."
LOST = f"agents/web-1 is STALE since {AGO_120}: connection reset."
NO_WAIT = "It does not wait for an agent that is OFFLINE."
SOON_OFFLINE = "2023-11-14 22:14:20Z (in 1 min)"
NAMED = "maintenance window, '0 22 * * *' in UTC,"
IN_1800 = "2023-11-14 22:43:20Z (in 30 min)"
IN_7200 = "2023-11-15 00:13:20Z (in 2 h)"
NEXT_OPENS = "2023-11-15 21:13:20Z (in 23 h)"
NEXT_WINDOW = f"from {NEXT_OPENS} until 2023-11-15 23:13:20Z (in 1 d 1 h)"
IS_OPEN = f"Its {NAMED} is open until {IN_1800}."
UNLESS_SENT = f"Unless it is sent by {IN_1800}, it waits for its next window, {NEXT_WINDOW}."
EXPIRES_LATE = "Unless it is begun by 2023-11-16 22:13:20Z (in 2 d), it ends as EXPIRED."
NOT_SET = f"It is sent only in its {NAMED} and the next one is not set yet."
IS_SET = "The next sweep, within seconds, lets it wait for its next window."

CASES: dict[str, tuple[TaskFacts, list[str], list[str]]] = {
    "skip, agent online": (
        SKIP,
        [NEXT_IN_LINE],
        [
            "It is sent as soon as the agent can take it.",
            "If agents/web-1 is OFFLINE before it takes it, it ends as SKIPPED.",
            EXPIRES,
        ],
    ),
    "skip, agent stale": (
        replace(SKIP, agent=STALE),
        [LOST, NO_WAIT],
        [
            "It is sent when agents/web-1 comes back.",
            f"Without a sign of life agents/web-1 is OFFLINE at {SOON_OFFLINE}, and it ends as SKIPPED.",
            EXPIRES,
        ],
    ),
    "skip, agent stale for too long": (
        replace(SKIP, agent=replace(STALE, offline_after=100 * SECOND)),
        [LOST, NO_WAIT],
        [
            "It is sent when agents/web-1 comes back.",
            "Without a sign of life agents/web-1 is OFFLINE by the next sweep, and it ends as SKIPPED.",
            EXPIRES,
        ],
    ),
    "skip, agent stale, expires before that is offline": (
        replace(SKIP, agent=STALE, expire_time=NOW + 30 * SECOND),
        [LOST, NO_WAIT],
        [
            "It is sent when agents/web-1 comes back.",
            "Unless it is begun by 2023-11-14 22:13:50Z (in 30 s), it ends as EXPIRED.",
        ],
    ),
    "skip, agent offline": (
        replace(SKIP, agent=OFFLINE),
        [GONE, NO_WAIT],
        ["The next sweep, within seconds, ends it as SKIPPED, unless agents/web-1 is back before."],
    ),
    "skip, leased, agent offline": (
        replace(LEASED, offline_policy="SKIP", agent=OFFLINE),
        [HANDED, GONE],
        [f"{LEASE_ENDS} it ends as SKIPPED, unless the agent takes it.", EXPIRES],
    ),
    "skip, leased, agent in a newer session": (
        replace(LEASED, offline_policy="SKIP", agent=replace(ONLINE, session_epoch=7)),
        [
            HANDED,
            "The agent has had session 7 since, and asks there for what it was handed and did not take.",
        ],
        [f"{LEASE_ENDS} it is queued again, unless the agent takes it.", EXPIRES],
    ),
    "skip, running, may be tried again": (
        replace(RUNNING, offline_policy="SKIP", idempotent=True, max_attempts=3),
        [JOURNALED],
        [
            "The agent's result decides.",
            f"{BY_DEADLINE} the attempt is given up and it is tried again, or ends as SKIPPED where the "
            "agent is OFFLINE then.",
        ],
    ),
    "leased, agent stale": (
        replace(LEASED, agent=STALE),
        [
            HANDED,
            LOST,
            "Until the agent is OFFLINE the attempt stays with that session, and nothing runs twice.",
        ],
        [
            "It is RUNNING once the agent says that it is in its journal.",
            f"Without a sign of life from the agent, the lease ends at {SOON_OFFLINE}: it is queued again.",
            EXPIRES,
        ],
    ),
    "skip, leased, agent stale": (
        replace(LEASED, offline_policy="SKIP", agent=replace(STALE, offline_after=100 * SECOND)),
        [
            HANDED,
            LOST,
            "Until the agent is OFFLINE the attempt stays with that session, and nothing runs twice.",
        ],
        [
            "It is RUNNING once the agent says that it is in its journal.",
            "Without a sign of life from the agent, the lease ends at 2023-11-14 22:13:40Z (in 20 s): it "
            "ends as SKIPPED.",
            EXPIRES,
        ],
    ),
    "latest": (
        replace(LATEST, agent=OFFLINE),
        [GONE],
        [
            "It is sent when agents/web-1 comes back.",
            "A later task of its key, sshd, would end it as SUPERSEDED.",
            EXPIRES,
        ],
    ),
    "latest, leased, a later one came": (
        replace(LEASED, supersede_key="sshd", superseded=True, agent=OFFLINE),
        [HANDED, LATER, GONE],
        [f"{LEASE_ENDS} it ends as SUPERSEDED, unless the agent takes it.", EXPIRES],
    ),
    "latest, running, a later one came": (
        replace(RUNNING, supersede_key="sshd", superseded=True, idempotent=True, max_attempts=3),
        [JOURNALED, LATER],
        ["The agent's result decides.", f"{BY_DEADLINE} it ends as SUPERSEDED."],
    ),
    "latest, running its last attempt, a later one came": (
        replace(
            RUNNING, supersede_key="sshd", superseded=True, idempotent=True, max_attempts=2, failed_count=1
        ),
        [JOURNALED, LATER],
        ["The agent's result decides.", f"{BY_DEADLINE} it ends as DEAD."],
    ),
    "window to come": (
        WAITING,
        [f"It waits for its {NAMED} which opens at {IN_3600}."],
        [
            f"It is sent as soon as the agent can take it, from {IN_3600} until {IN_7200}.",
            f"Unless it is sent by {IN_7200}, it waits for its next window, {NEXT_WINDOW}.",
            EXPIRES_LATE,
        ],
    ),
    "window to come, agent offline": (
        replace(WAITING, agent=OFFLINE),
        [GONE, f"It waits for its {NAMED} which opens at {IN_3600}."],
        [
            f"It is sent when agents/web-1 comes back, from {IN_3600} until {IN_7200}.",
            f"Unless it is sent by {IN_7200}, it waits for its next window, {NEXT_WINDOW}.",
            EXPIRES_LATE,
        ],
    ),
    "window open": (
        WINDOW,
        [IS_OPEN, NEXT_IN_LINE],
        [f"It is sent as soon as the agent can take it, until {IN_1800}.", UNLESS_SENT, EXPIRES_LATE],
    ),
    "window open, agent offline": (
        replace(WINDOW, agent=OFFLINE),
        [GONE, IS_OPEN],
        [f"It is sent when agents/web-1 comes back, until {IN_1800}.", UNLESS_SENT, EXPIRES_LATE],
    ),
    "window open, expires before it closes": (
        replace(WINDOW, expire_time=NOW + 60 * SECOND),
        [IS_OPEN, NEXT_IN_LINE],
        [
            f"It is sent as soon as the agent can take it, until {IN_1800}.",
            "Unless it is begun by 2023-11-14 22:14:20Z (in 1 min), it ends as EXPIRED.",
        ],
    ),
    "window open, expires before the next one": (
        replace(WINDOW, expire_time=NOW + HOUR),
        [IS_OPEN, NEXT_IN_LINE],
        [
            f"It is sent as soon as the agent can take it, until {IN_1800}.",
            f"Unless it is sent by {IN_1800}, it expires: its next window opens only at {NEXT_OPENS}.",
            EXPIRES,
        ],
    ),
    "window open, retry due in it": (
        replace(WINDOW, not_before=NOW + 5 * SECOND, **RETRIED),
        [
            IS_OPEN,
            "Attempt 2 is not begun before 2023-11-14 22:13:25Z (in 5 s), so as not to hurry.",
            LAST_FAILED,
        ],
        [
            "It is sent as soon as the agent can take it, from 2023-11-14 22:13:25Z (in 5 s) until "
            f"{IN_1800}.",
            UNLESS_SENT,
            EXPIRES_LATE,
        ],
    ),
    "window open, retry due after it closes": (
        replace(WINDOW, not_before=NOW + 1_805 * SECOND, **RETRIED),
        [
            IS_OPEN,
            "Attempt 2 is not begun before 2023-11-14 22:43:25Z (in 30 min 5 s), so as not to hurry.",
            LAST_FAILED,
        ],
        [
            f"When it closes, at {IN_1800}, the sweep lets it wait for its next window.",
            f"It is sent as soon as the agent can take it, {NEXT_WINDOW}.",
            EXPIRES_LATE,
        ],
    ),
    "window to come for a retry": (
        replace(WAITING, **RETRIED),
        [f"Attempt 2 waits for its {NAMED} which opens at {IN_3600}.", LAST_FAILED],
        [
            f"It is sent as soon as the agent can take it, from {IN_3600} until {IN_7200}.",
            f"Unless it is sent by {IN_7200}, it waits for its next window, {NEXT_WINDOW}.",
            EXPIRES_LATE,
        ],
    ),
    "window closed": (
        MISSED,
        [NOT_SET],
        [IS_SET, f"It is sent as soon as the agent can take it, {NEXT_WINDOW}.", EXPIRES_LATE],
    ),
    "window closed, agent offline": (
        replace(MISSED, agent=OFFLINE),
        [GONE, NOT_SET],
        [IS_SET, f"It is sent when agents/web-1 comes back, {NEXT_WINDOW}.", EXPIRES_LATE],
    ),
    "window closed, expires before the next one": (
        replace(MISSED, expire_time=NOW + HOUR),
        [NOT_SET],
        [f"It expires before its next window opens, at {NEXT_OPENS}.", EXPIRES],
    ),
    "window that can no longer be read": (
        replace(WAITING, not_before=SHUT.end, window=replace(SHUT, following=None)),
        [f"Its {NAMED} can no longer be read, so it is not sent."],
        [f"At {IN_7200} the sweep looks again whether the window can be read.", EXPIRES_LATE],
    ),
    "window open that can no longer be read": (
        replace(WINDOW, window=replace(OPEN, following=None)),
        [IS_OPEN, NEXT_IN_LINE],
        [
            f"It is sent as soon as the agent can take it, until {IN_1800}.",
            f"Unless it is sent by {IN_1800}, its next window is looked for then.",
            EXPIRES_LATE,
        ],
    ),
    "window closed, leased, agent in a newer session": (
        replace(LEASED, window=OVER, agent=replace(ONLINE, session_epoch=7)),
        [
            HANDED,
            f"Its {NAMED} has closed since, so it is not sent again before the next one.",
        ],
        [f"{LEASE_ENDS} it is queued again for its next window, unless the agent takes it.", EXPIRES],
    ),
    "window, running, may be tried again": (
        replace(RUNNING, window=OPEN, idempotent=True, max_attempts=3),
        [JOURNALED],
        [
            "The agent's result decides.",
            f"{BY_DEADLINE} the attempt is given up and it is tried again when its maintenance window is "
            "open.",
        ],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_task_with_an_offline_policy_is_explained_in_these_words(case: str) -> None:
    task, because, next_steps = CASES[case]
    assert words(explain_task(task, NOW)) == (because, next_steps)


@given(task=st.sampled_from([task for task, _, _ in CASES.values()]), circumstance=circumstances)
def test_a_policy_promises_nothing_that_something_else_decides_earlier(
    task: TaskFacts, circumstance: Circumstance
) -> None:
    check_in_circumstance(task, circumstance)
