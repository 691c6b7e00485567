"""Why a task is in its state, and what happens to it next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from controlplane.tasks.explaining.rules.facts import AgentFacts, AttemptFacts, TaskFacts
from controlplane.tasks.explaining.rules.presence import presence_sentence
from controlplane.tasks.explaining.rules.said import (
    Code,
    Explanation,
    NextStep,
    Remedy,
    Sentence,
    at,
    clause,
    counted,
)


def explain_task(task: TaskFacts, now: int) -> Explanation:
    """Return why a task is as it is at the instant ``now``, in microseconds."""
    because, next_steps, remedies = _BY_STATE.get(task.state, (_final, _nothing, _after_the_end))
    return Explanation(
        task.state_time,
        tuple(because(task, now)),
        tuple(next_steps(task, now)),
        tuple(remedies(task, now)),
    )


# --- QUEUED


def _queued(task: TaskFacts, now: int) -> Iterator[Sentence]:
    if task.expire_time <= now:
        yield Sentence(Code.OVERDUE, f"It was not begun by {at(task.expire_time, now)}.")
    if task.agent is None:
        yield Sentence(Code.AGENT_DELETED, f"agents/{task.agent_id} is deleted.")
    elif not task.agent.online:
        yield presence_sentence(task.agent, now)
    if task.not_before > now:
        yield _waits(task, now)
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
        elif not task.ahead and task.not_before <= now < task.expire_time:
            yield Sentence(
                Code.NEXT_IN_QUEUE,
                f"It is the next one for agents/{task.agent_id}, which is ONLINE since "
                f"{at(task.agent.presence_time, now)}.",
            )
    yield from _kind(task)
    if task.last is not None:
        yield _last(task.last, task.state_reason, now)


def _waits(task: TaskFacts, now: int) -> Sentence:
    until = at(task.not_before, now)
    if task.attempt_count:
        return Sentence(
            Code.RETRY_WAITS,
            f"Attempt {task.attempt_count + 1} is not begun before {until}, so as not to hurry.",
        )
    return Sentence(Code.NOT_BEFORE, f"It is not begun before {until}{clause(task.state_reason)}.")


def _kind(task: TaskFacts) -> Iterator[Sentence]:
    agent = task.agent
    if agent is not None and agent.task_kinds and task.kind not in agent.task_kinds:
        yield Sentence(
            Code.KIND_NOT_TAKEN,
            f"The agent takes {', '.join(agent.task_kinds)}, and this is {task.kind}: it will refuse it.",
        )


def _last(attempt: AttemptFacts, state_reason: str, now: int) -> Sentence:
    when = "" if attempt.end_time is None else f" at {at(attempt.end_time, now)}"
    if attempt.outcome:
        ended = f"reported {attempt.outcome}{when}{clause(attempt.reason)}"
    elif attempt.state == "LAPSED":
        ended = f"was never taken, and its lease ended{when}{clause(state_reason)}"
    else:
        ended = f"was given up without a result{when}{clause(state_reason)}"
    return Sentence(Code.LAST_ATTEMPT, f"Attempt {attempt.number} {ended}.")


def _queued_next(task: TaskFacts, now: int) -> Iterator[NextStep]:
    if task.expire_time <= now:
        yield _expiry(task, now)
        return
    after = f", not before {at(task.not_before, now)}" if task.not_before > now else ""
    if task.not_before >= task.expire_time:
        pass  # it will not come to that
    elif task.agent is not None and task.agent.online:
        others = ", after those that go before it" if task.ahead else ""
        text = f"It is sent as soon as the agent can take it{others}{after}."
        yield NextStep(Code.SENT_SOON, text)
    elif task.agent is not None:
        yield NextStep(Code.SENT_ON_RETURN, f"It is sent when agents/{task.agent_id} comes back{after}.")
    yield _expiry(task, now)


def _expiry(task: TaskFacts, now: int) -> NextStep:
    if task.expire_time <= now:
        return NextStep(Code.EXPIRES, "The next sweep, within seconds, ends it as EXPIRED.", now)
    text = f"Unless it is begun by {at(task.expire_time, now)}, it ends as EXPIRED."
    return NextStep(Code.EXPIRES, text, task.expire_time)


def _queued_remedies(task: TaskFacts, now: int) -> Iterator[Remedy]:
    del now
    if task.agent is not None and not task.agent.online:
        yield _ask_agent(task)
    if task.ahead or task.in_hand:
        yield Remedy(
            "See what else the agent has",
            f"fleetwright tasks list --agent {task.agent_id} --state QUEUED --state LEASED --state RUNNING",
        )
    yield _cancel(task, "Cancel it at once")


# --- LEASED


def _leased(task: TaskFacts, now: int) -> Iterator[Sentence]:
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
    yield from _cancellation(task, now)
    if agent is not None and not agent.online:
        yield presence_sentence(agent, now)
    if attempt is None:
        return
    if not _session_gone(attempt, agent):
        yield Sentence(
            Code.LEASE_HELD,
            "That session is alive, so the attempt stays with it, and nothing runs twice.",
        )
    elif agent is not None and agent.online:
        yield Sentence(
            Code.SESSION,
            f"The agent has had session {agent.session_epoch} since, and asks there for what it was handed "
            "and did not take.",
        )


def _session_gone(attempt: AttemptFacts, agent: AgentFacts | None) -> bool:
    return agent is None or not agent.online or agent.session_epoch != attempt.session_epoch


def _leased_next(task: TaskFacts, now: int) -> Iterator[NextStep]:
    attempt = task.current
    gone = attempt is not None and _session_gone(attempt, task.agent)
    if task.expire_time <= now:
        pass  # it will not come to that
    elif not gone and task.cancel_requested:
        text = "The agent is asked to stop it, and what it answers decides."
        yield NextStep(Code.RESULT_DECIDES, text)
    elif not gone:
        yield NextStep(Code.JOURNALED, "It is RUNNING once the agent says that it is in its journal.")
    elif attempt is not None and attempt.lease_expire_time < task.expire_time:
        after = "it ends as CANCELLED" if task.cancel_requested else "it is queued again"
        code = Code.CANCELLED if task.cancel_requested else Code.LEASE_LAPSES
        if attempt.lease_expire_time <= now:
            text = f"The lease is over: by the next sweep, within seconds, {after}."
        else:
            text = (
                f"The lease ends at {at(attempt.lease_expire_time, now)}: {after}, unless the agent takes it."
            )
        yield NextStep(code, text, max(attempt.lease_expire_time, now))
    yield _expiry(task, now)


def _leased_remedies(task: TaskFacts, now: int) -> Iterator[Remedy]:
    del now
    if task.agent is not None:
        yield _ask_agent(task)
    if not task.cancel_requested:
        yield _cancel(task, "Cancel it")


# --- RUNNING


def _running(task: TaskFacts, now: int) -> Iterator[Sentence]:
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
    yield from _cancellation(task, now)
    if agent is not None and not agent.online:
        yield presence_sentence(agent, now, "; it goes on by itself and reports when it is back")
    if attempt is not None and attempt.run_deadline is not None and attempt.run_deadline <= now:
        yield Sentence(Code.OVERDUE, f"Its time was over at {at(attempt.run_deadline, now)}.")


def _running_next(task: TaskFacts, now: int) -> Iterator[NextStep]:
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
        after = _after_overrun(task)
        code = Code.CANCELLED if task.cancel_requested else Code.RUN_DEADLINE
        if overdue:
            text = f"By the next sweep, within seconds, {after}."
        else:
            text = f"Without a result by {at(deadline, now)}, {after}."
        yield NextStep(code, text, max(deadline, now))


def _after_overrun(task: TaskFacts) -> str:
    if task.cancel_requested:
        return "it ends as CANCELLED"
    if not task.idempotent or task.max_attempts <= 1:
        return "it ends as FAILED"
    more = task.failed_count + 1 < task.max_attempts
    return "the attempt is given up and it is tried again" if more else "it ends as DEAD"


def _running_remedies(task: TaskFacts, now: int) -> Iterator[Remedy]:
    del now
    yield Remedy("Read what it has said", f"fleetwright tasks output tasks/{task.task_id}")
    if task.agent is not None and not task.agent.online:
        yield _ask_agent(task)
    if not task.cancel_requested:
        yield _cancel(task, "Ask the agent to stop it")


# --- final


def _final(task: TaskFacts, now: int) -> Iterator[Sentence]:
    decided = task.decided
    if decided is not None:
        when = task.state_time if decided.end_time is None else decided.end_time
        reported = decided.outcome or "a result"
        text = f"Attempt {decided.number} reported {reported} at {at(when, now)}{clause(decided.reason)}."
        yield Sentence(Code.DECIDED_BY_RESULT, text)
    else:
        reason = task.state_reason.strip().rstrip(".") or f"the server ended it as {task.state}"
        yield Sentence(Code.DECIDED_BY_SERVER, f"No result decided: {reason}.")
    if task.state == "DEAD":
        failed = counted(task.failed_count, "attempt", "attempts")
        yield Sentence(
            Code.ATTEMPTS_USED_UP,
            f"{failed} failed of at most {task.max_attempts}, after {task.attempt_count} begun.",
        )
    if task.state == "INTERRUPTED":
        yield Sentence(
            Code.EFFECT_UNKNOWN,
            "Whether it had an effect is not known, and it was not declared idempotent, so it was not run "
            "again.",
        )
    if task.cancel_requested and task.state != "CANCELLED":
        yield from _cancellation(task, now, "; it ended in another way before")
    if task.state in {"EXPIRED", "SKIPPED"} and task.agent is not None and not task.agent.online:
        yield presence_sentence(task.agent, now)
    if task.state == "EXPIRED" and task.last is not None:
        yield _last(task.last, "", now)


def _nothing(task: TaskFacts, now: int) -> Iterator[NextStep]:
    del task, now
    yield NextStep(Code.FINAL, "Nothing: the state is final. The task is deleted once its retention is over.")


def _after_the_end(task: TaskFacts, now: int) -> Iterator[Remedy]:
    del now
    name = f"tasks/{task.task_id}"
    if task.attempt_count:
        yield Remedy("Read what it said", f"fleetwright tasks output {name}")
    if task.state == "INTERRUPTED":
        yield Remedy("Look at the host, then create it again; with --idempotent it is run again by itself")
    elif task.state == "EXPIRED":
        yield Remedy("Create it again, with a longer --queue-time where the agent is away for long")
    elif task.state in {"FAILED", "DEAD"}:
        yield Remedy("Mend the cause, then create it again; --max-attempts lets it fail more often")
    yield Remedy("See what happened to it, one by one", f"fleetwright tasks events {name}")


# --- what several states say


def _cancellation(task: TaskFacts, now: int, more: str = "") -> Iterator[Sentence]:
    if not task.cancel_requested:
        return
    when = "" if task.cancel_time is None else f" at {at(task.cancel_time, now)}"
    text = f"Its cancellation was asked for{when}{clause(task.cancel_detail)}{more}."
    yield Sentence(Code.CANCEL_REQUESTED, text)


def _cancel(task: TaskFacts, text: str) -> Remedy:
    return Remedy(text, f"fleetwright tasks cancel tasks/{task.task_id}")


def _ask_agent(task: TaskFacts) -> Remedy:
    return Remedy("See why the agent is as it is", f"fleetwright explain agent {task.agent_id}")


_Parts = tuple[
    Callable[[TaskFacts, int], Iterator[Sentence]],
    Callable[[TaskFacts, int], Iterator[NextStep]],
    Callable[[TaskFacts, int], Iterator[Remedy]],
]
_BY_STATE: Mapping[str, _Parts] = {
    "QUEUED": (_queued, _queued_next, _queued_remedies),
    "LEASED": (_leased, _leased_next, _leased_remedies),
    "RUNNING": (_running, _running_next, _running_remedies),
}
"""How a state is explained; every other one is final."""
