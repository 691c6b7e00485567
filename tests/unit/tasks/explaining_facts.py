"""Tasks, agents and attempts to be explained, and the words that many explanations share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from controlplane.tasks.explaining.rules import (
    AgentFacts,
    AttemptFacts,
    Code,
    Explanation,
    TaskFacts,
    explain_task,
)

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
LATEST = replace(TASK, offline_policy="LATEST", supersede_key="sshd")
LATER = "A later task of its key, sshd, was created, so it is begun no further time."


def words(explanation: Explanation) -> tuple[list[str], list[str]]:
    return (
        [sentence.text for sentence in explanation.because],
        [step.text for step in explanation.next_steps],
    )


@dataclass(frozen=True)
class Circumstance:
    """What may differ while a task is in a state; instants in seconds from now."""

    agent: AgentFacts | None
    expires: int
    not_before: int
    lease: int
    cancel: bool


circumstances = st.builds(
    Circumstance,
    agent=st.sampled_from([ONLINE, OFFLINE, STALE, NEVER, None]),
    expires=st.integers(-10, 10),
    not_before=st.integers(-10, 10),
    lease=st.integers(-10, 10),
    cancel=st.booleans(),
)


def check_in_circumstance(task: TaskFacts, found: Circumstance) -> None:
    """Check what holds of every explanation: there is one, and what it promises may come true."""
    asked = replace(
        task,
        agent=found.agent,
        expire_time=NOW + found.expires * SECOND,
        not_before=NOW + found.not_before * SECOND,
        current=task.current and replace(task.current, lease_expire_time=NOW + found.lease * SECOND),
        # A queued task is never one that is to be cancelled.
        cancel_requested=found.cancel and task.state != "QUEUED",
    )
    explanation = explain_task(asked, NOW)
    assert explanation.because
    assert explanation.next_steps
    known = [step.latest for step in explanation.next_steps if step.latest is not None]
    assert all(latest >= NOW for latest in known)
    if task.state != "QUEUED":
        return
    assert all(latest <= max(asked.expire_time, NOW) for latest in known)
    codes = {step.code for step in explanation.next_steps}
    sent = {Code.SENT_SOON, Code.SENT_ON_RETURN}
    if found.not_before >= found.expires or (asked.skips and asked.agent is not None and asked.agent.offline):
        assert not codes & sent
    if asked.window is not None and asked.window.end <= NOW:
        assert Code.NEXT_IN_QUEUE not in {sentence.code for sentence in explanation.because}
