"""Why a task is LEASED or RUNNING, and what happens to it next: its agent has it, or may have it."""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.tasks.explaining.rules.facts import AgentFacts, AttemptFacts, TaskFacts
from controlplane.tasks.explaining.rules.presence import offline_at, presence_sentence
from controlplane.tasks.explaining.rules.said import Code, NextStep, Remedy, Sentence, at, clause
from controlplane.tasks.explaining.rules.shared import (
    ask_agent,
    cancel_it,
    cancellation,
    expiry,
    later_of_key,
)
from controlplane.tasks.rules import TaskState, TaskView, event_of_lapse, event_of_overrun, transition

_ENDS = {TaskState.CANCELLED: Code.CANCELLED, TaskState.SUPERSEDED: Code.SUPERSEDED}


def _view(task: TaskFacts) -> TaskView:
    return TaskView(
        TaskState[task.state],
        task.cancel_requested,
        task.idempotent,
        task.max_attempts,
        task.attempt_count,
        task.failed_count,
        task.superseded,
    )


# --- LEASED


def leased_because(task: TaskFacts, now: int) -> Iterator[Sentence]:
    """Yield to whom it was handed, and what is known since."""
    attempt, agent = task.current, task.agent
    if attempt is None:
        yield Sentence(Code.HANDED_OUT, f"It was handed to agents/{task.agent_id}.")
    else:
        yield Sentence(
            Code.HANDED_OUT,
            f"Attempt {attempt.number} was handed to session {attempt.session_epoch} of "
            f"agents/{task.agent_id} at {at(attempt.lease_time, now)}.",
        )
        if task.sent_time is not None:
            yield Sentence(
                Code.SENT_NOT_JOURNALED,
                f"It was sent at {at(task.sent_time, now)}, and the agent has not said that it is in its "
                "journal.",
            )
    yield from cancellation(task, now)
    yield from later_of_key(task)
    if agent is not None and not agent.online:
        yield presence_sentence(agent, now)
    if attempt is None:
        return
    if not _session_gone(attempt, agent):
        text = "That session is alive, so the attempt stays with it, and nothing runs twice."
        if agent is not None and not agent.online:
            text = "Until the agent is OFFLINE the attempt stays with that session, and nothing runs twice."
        yield Sentence(Code.LEASE_HELD, text)
    elif task.window is not None and task.window.end <= now:
        yield Sentence(
            Code.WINDOW_CLOSED,
            f"Its maintenance window, {task.window.name}, has closed since, so it is not sent again before "
            "the next one.",
        )
    elif agent is not None and agent.online:
        yield Sentence(
            Code.SESSION,
            f"The agent has had session {agent.session_epoch} since, and asks there for what it was handed "
            "and did not take.",
        )


def _session_gone(attempt: AttemptFacts, agent: AgentFacts | None) -> bool:
    # As the sweep sees it: one that is STALE may still take it in the session that it was handed to.
    return agent is None or agent.offline or agent.session_epoch != attempt.session_epoch


def leased_next(task: TaskFacts, now: int) -> Iterator[NextStep]:
    """Yield what happens next, the nearest first."""
    attempt = task.current
    if task.expire_time <= now:
        yield expiry(task, now)
        return
    gone = attempt is not None and _session_gone(attempt, task.agent)
    if not gone and task.cancel_requested:
        text = "The agent is asked to stop it, and what it answers decides."
        yield NextStep(Code.RESULT_DECIDES, text)
    elif not gone:
        yield NextStep(Code.JOURNALED, "It is RUNNING once the agent says that it is in its journal.")
    lapse = _lapse(task, attempt)
    lapses = lapse is not None and lapse < task.expire_time
    if lapse is not None and lapses:
        code, after = _after_lapse(task, lapse, gone=gone)
        if gone and lapse <= now:
            text = f"The lease is over: by the next sweep, within seconds, {after}."
        elif gone:
            text = f"The lease ends at {at(lapse, now)}: {after}, unless the agent takes it."
        else:
            when = "by the next sweep" if lapse <= now else f"at {at(lapse, now)}"
            text = f"Without a sign of life from the agent, the lease ends {when}: {after}."
        yield NextStep(code, text, max(lapse, now))
    if not (lapses and task.cancel_requested):
        yield expiry(task, now)


def _lapse(task: TaskFacts, attempt: AttemptFacts | None) -> int | None:
    """Return when the lease ends if the agent says nothing; None while its session lives."""
    if attempt is None:
        return None
    if _session_gone(attempt, task.agent):
        return attempt.lease_expire_time
    if task.agent is not None and not task.agent.online:
        return max(attempt.lease_expire_time, offline_at(task.agent))
    return None


def _after_lapse(task: TaskFacts, lapse: int, *, gone: bool) -> tuple[Code, str]:
    state = transition(TaskState.LEASED, event_of_lapse(_view(task)))
    if state in _ENDS:
        return _ENDS[state], f"it ends as {state.name}"
    # Where the session is not gone yet, the lease ends because the agent is OFFLINE then.
    offline = not gone or (task.agent is not None and task.agent.offline)
    if task.skips and offline:
        return Code.SKIPPED, "it ends as SKIPPED"
    missed = task.window is not None and task.window.end <= lapse
    return Code.LEASE_LAPSES, "it is queued again" + (" for its next window" if missed else "")


def leased_remedies(task: TaskFacts, now: int) -> Iterator[Remedy]:
    """Yield what an administrator can do."""
    del now
    if task.agent is not None:
        yield ask_agent(task)
    if not task.cancel_requested:
        yield cancel_it(task, "Cancel it")


# --- RUNNING


def running_because(task: TaskFacts, now: int) -> Iterator[Sentence]:
    """Yield since when its agent has it, and how far it is."""
    attempt, agent = task.current, task.agent
    number = "" if attempt is None else f"Attempt {attempt.number} is"
    since = task.state_time if attempt is None or attempt.accept_time is None else attempt.accept_time
    yield Sentence(
        Code.JOURNALED,
        f"{number or 'It is'} in the journal of agents/{task.agent_id} since {at(since, now)}.",
    )
    if task.progress_percent or task.progress_message:
        said = f"{task.progress_percent} %{clause(task.progress_message)}"
        yield Sentence(Code.PROGRESS, f"The agent says that it is at {said}.")
    yield from cancellation(task, now)
    yield from later_of_key(task)
    if agent is not None and not agent.online:
        yield presence_sentence(agent, now, "; it goes on by itself and reports when it is back")
    if attempt is not None and attempt.run_deadline is not None and attempt.run_deadline <= now:
        yield Sentence(Code.OVERDUE, f"Its time was over at {at(attempt.run_deadline, now)}.")


def running_next(task: TaskFacts, now: int) -> Iterator[NextStep]:
    """Yield what happens next, the nearest first."""
    attempt, agent = task.current, task.agent
    online = agent is not None and agent.online
    deadline = None if attempt is None else attempt.run_deadline
    overdue = deadline is not None and deadline <= now
    if not overdue:
        if task.cancel_requested and online:
            text = "The agent is asked to stop it, and its result decides."
        elif task.cancel_requested:
            text = "The agent is asked to stop it when it comes back, and its result decides."
        elif online:
            text = "The agent's result decides."
        else:
            text = "The agent's result decides, as soon as it is back."
        yield NextStep(Code.RESULT_DECIDES, text)
    if deadline is not None:
        code, after = _after_overrun(task)
        if overdue:
            text = f"By the next sweep, within seconds, {after}."
        else:
            text = f"Without a result by {at(deadline, now)}, {after}."
        yield NextStep(code, text, max(deadline, now))


def _after_overrun(task: TaskFacts) -> tuple[Code, str]:
    state = transition(TaskState.RUNNING, event_of_overrun(_view(task)))
    if state is not TaskState.QUEUED:
        return _ENDS.get(state, Code.RUN_DEADLINE), f"it ends as {state.name}"
    if task.skips:
        again = "it is tried again, or ends as SKIPPED where the agent is OFFLINE then"
    elif task.window is not None:
        again = "it is tried again when its maintenance window is open"
    else:
        again = "it is tried again"
    return Code.RUN_DEADLINE, f"the attempt is given up and {again}"


def running_remedies(task: TaskFacts, now: int) -> Iterator[Remedy]:
    """Yield what an administrator can do."""
    del now
    yield Remedy("Read what it has said", f"fleetwright tasks output tasks/{task.task_id}")
    if task.agent is not None and not task.agent.online:
        yield ask_agent(task)
    if not task.cancel_requested:
        yield cancel_it(task, "Ask the agent to stop it")
