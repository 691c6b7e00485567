"""Why a task is QUEUED, and what happens to it next."""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.tasks.explaining.rules.facts import TaskFacts, WindowFacts
from controlplane.tasks.explaining.rules.presence import offline_at, presence_sentence
from controlplane.tasks.explaining.rules.said import Code, NextStep, Remedy, Sentence, at, counted
from controlplane.tasks.explaining.rules.shared import ask_agent, cancel_it, expiry, last_attempt

SWEEP = "The next sweep, within seconds,"


def because(task: TaskFacts, now: int) -> Iterator[Sentence]:
    """Yield why it waits."""
    if task.expire_time <= now:
        yield Sentence(Code.OVERDUE, f"It was not begun by {at(task.expire_time, now)}.")
    if task.agent is None:
        yield Sentence(Code.AGENT_DELETED, f"agents/{task.agent_id} is deleted.")
    elif not task.agent.online:
        yield presence_sentence(task.agent, now)
        if task.skips:
            yield Sentence(Code.SKIPS_OFFLINE, "It does not wait for an agent that is OFFLINE.")
    if task.window is not None:
        yield _window(task, task.window, now)
    if task.not_before > now and not _is_window(task):
        yield _waits(task, now)
    yield from _turn(task, now)
    yield from _kind(task)
    if task.last is not None:
        yield last_attempt(task.last, task.state_reason, now)


def _turn(task: TaskFacts, now: int) -> Iterator[Sentence]:
    if task.ahead:
        others = counted(task.ahead, "task goes", "tasks go")
        yield Sentence(
            Code.BEHIND_OTHERS,
            f"{others} to the agent before it, of a higher priority or created earlier.",
        )
    if task.agent is not None and task.agent.online:
        if task.in_hand:
            others = counted(task.in_hand, "other attempt", "other attempts")
            yield Sentence(
                Code.AGENT_BUSY, f"The agent has {others} in hand; it takes more as it gets through them."
            )
        elif not task.ahead and task.not_before <= now < task.expire_time and _in_window(task, now):
            yield Sentence(
                Code.NEXT_IN_QUEUE,
                f"It is the next one for agents/{task.agent_id}, which is ONLINE since "
                f"{at(task.agent.presence_time, now)}.",
            )


def _window(task: TaskFacts, window: WindowFacts, now: int) -> Sentence:
    if window.following is None and not _in_window(task, now):
        text = f"Its maintenance window, {window.name}, can no longer be read, so it is not sent."
        return Sentence(Code.WINDOW_CLOSED, text)
    if window.end <= now:
        # It missed one, or replays a task and was not given one yet.
        text = f"It is sent only in its maintenance window, {window.name}, and the next one is not set yet."
        return Sentence(Code.WINDOW_CLOSED, text)
    if window.begin > now:
        what = f"Attempt {task.attempt_count + 1}" if task.attempt_count else "It"
        opens = at(window.begin, now)
        text = f"{what} waits for its maintenance window, {window.name}, which opens at {opens}."
        return Sentence(Code.WAITS_FOR_WINDOW, text)
    text = f"Its maintenance window, {window.name}, is open until {at(window.end, now)}."
    return Sentence(Code.WINDOW_OPEN, text)


def _is_window(task: TaskFacts) -> bool:
    """Return whether ``not_before`` is the opening of its window, or the look at one that cannot be read."""
    window = task.window
    return window is not None and (task.not_before <= window.begin or window.following is None)


def _in_window(task: TaskFacts, now: int) -> bool:
    """Return whether it may go to its agent before its window closes; without one it may at any time."""
    return task.window is None or max(task.not_before, now) < task.window.end


def _waits(task: TaskFacts, now: int) -> Sentence:
    until = at(task.not_before, now)
    if task.attempt_count:
        return Sentence(
            Code.RETRY_WAITS,
            f"Attempt {task.attempt_count + 1} is not begun before {until}, so as not to hurry.",
        )
    return Sentence(Code.NOT_BEFORE, f"It is not begun before {until}.")


def _kind(task: TaskFacts) -> Iterator[Sentence]:
    agent = task.agent
    if agent is not None and agent.task_kinds and task.kind not in agent.task_kinds:
        yield Sentence(
            Code.KIND_NOT_TAKEN,
            f"The agent takes {', '.join(agent.task_kinds)}, and this is {task.kind}: it will refuse it.",
        )


def next_steps(task: TaskFacts, now: int) -> Iterator[NextStep]:
    """Yield what happens next, the nearest first."""
    if task.expire_time <= now:
        yield expiry(task, now)
        return
    if task.skips and task.agent is not None and task.agent.offline:
        text = f"{SWEEP} ends it as SKIPPED, unless agents/{task.agent_id} is back before."
        yield NextStep(Code.SKIPPED, text, now)
        return
    if _in_window(task, now):
        yield from _sent(task, task.not_before, task.window.end if task.window else None, now)
        if task.window is not None and task.not_before < task.expire_time:
            yield from _missed(task, task.window, now)
    elif task.window is not None:
        yield from _put_off(task, task.window, now)
        if task.window.following is not None:
            begin, end = task.window.following
            yield from _sent(task, max(task.not_before, begin), end, now)
    yield from _by_policy(task, now)
    yield expiry(task, now)


def _sent(task: TaskFacts, start: int, end: int | None, now: int) -> Iterator[NextStep]:
    if task.agent is None or start >= task.expire_time or (end is not None and start >= end):
        return  # it will not come to that
    when = f", not before {at(start, now)}" if start > now else ""
    if end is not None:
        when = f", from {at(start, now)} until {at(end, now)}" if start > now else f", until {at(end, now)}"
    if task.agent.online:
        others = ", after those that go before it" if task.ahead else ""
        yield NextStep(Code.SENT_SOON, f"It is sent as soon as the agent can take it{others}{when}.")
    else:
        yield NextStep(Code.SENT_ON_RETURN, f"It is sent when agents/{task.agent_id} comes back{when}.")


def _missed(task: TaskFacts, window: WindowFacts, now: int) -> Iterator[NextStep]:
    """Yield what happens if the window in which it may be sent closes before."""
    if window.end >= task.expire_time:
        return  # it expires before
    end = at(window.end, now)
    if window.following is None:
        text = f"Unless it is sent by {end}, its next window is looked for then."
    else:
        begin, until = (at(instant, now) for instant in window.following)
        if window.following[0] >= task.expire_time:
            text = f"Unless it is sent by {end}, it expires: its next window opens only at {begin}."
        else:
            text = f"Unless it is sent by {end}, it waits for its next window, from {begin} until {until}."
    yield NextStep(Code.NEXT_WINDOW, text, window.end)


def _put_off(task: TaskFacts, window: WindowFacts, now: int) -> Iterator[NextStep]:
    """Yield that it is put off to its next window, as it cannot be sent in this one."""
    if window.end >= task.expire_time:
        return  # it expires before
    when = SWEEP if window.end <= now else f"When it closes, at {at(window.end, now)}, the sweep"
    if window.following is None:
        when = SWEEP if window.end <= now else f"At {at(window.end, now)} the sweep"
        text = f"{when} looks again whether the window can be read."
    elif window.following[0] >= task.expire_time:
        text = f"It expires before its next window opens, at {at(window.following[0], now)}."
        # What is promised is the expiry, at its own time.
        yield NextStep(Code.NEXT_WINDOW, text)
        return
    else:
        text = f"{when} lets it wait for its next window."
    yield NextStep(Code.NEXT_WINDOW, text, max(window.end, now))


def _by_policy(task: TaskFacts, now: int) -> Iterator[NextStep]:
    """Yield how its offline policy may end it before it is begun."""
    if task.skips and task.agent is not None:
        name = f"agents/{task.agent_id}"
        if task.agent.online:
            text = f"If {name} is OFFLINE before it takes it, it ends as SKIPPED."
            yield NextStep(Code.SKIPPED, text)
        elif offline_at(task.agent) < task.expire_time:
            due = offline_at(task.agent)
            when = "by the next sweep" if due <= now else f"at {at(due, now)}"
            text = f"Without a sign of life {name} is OFFLINE {when}, and it ends as SKIPPED."
            yield NextStep(Code.SKIPPED, text, max(due, now))
    if task.supersede_key:
        text = f"A later task of its key, {task.supersede_key}, would end it as SUPERSEDED."
        yield NextStep(Code.SUPERSEDED, text)


def remedies(task: TaskFacts, now: int) -> Iterator[Remedy]:
    """Yield what an administrator can do."""
    del now
    if task.agent is not None and not task.agent.online:
        yield ask_agent(task)
    if task.ahead or task.in_hand:
        yield Remedy(
            "See what else the agent has",
            f"fleetwright tasks list --agent {task.agent_id} --state QUEUED --state LEASED --state RUNNING",
        )
    yield cancel_it(task, "Cancel it at once")
