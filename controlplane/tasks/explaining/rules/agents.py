"""Why an agent has its presence, what work it has, and what happens next."""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.tasks.explaining.rules.facts import AgentFacts, OpenWork
from controlplane.tasks.explaining.rules.presence import offline_at, presence_sentence
from controlplane.tasks.explaining.rules.said import (
    Code,
    Explanation,
    NextStep,
    Remedy,
    Sentence,
    at,
    counted,
    length,
)

CLOCK_TOLERANCE = 1_000_000
"""Offset of a clock that is nothing to speak of, in microseconds: the greeting itself takes a while."""


def explain_agent(agent: AgentFacts, work: OpenWork, now: int) -> Explanation:
    """Return why an agent is as it is at the instant ``now``, in microseconds."""
    return Explanation(
        agent.presence_time,
        tuple(_because(agent, work, now)),
        tuple(_next(agent, work, now)),
        tuple(_remedies(agent, work, now)),
    )


def _because(agent: AgentFacts, work: OpenWork, now: int) -> Iterator[Sentence]:
    yield presence_sentence(agent, now)
    if agent.last_seen_time is not None:
        yield Sentence(Code.LAST_SEEN, f"It was last heard of at {at(agent.last_seen_time, now)}.")
    if agent.session_epoch:
        which = "Its session is" if agent.online else "Its last session was"
        yield Sentence(Code.SESSION, f"{which} number {agent.session_epoch}.")
    if agent.suspected_clone:
        yield Sentence(
            Code.SUSPECTED_CLONE,
            "A session of it showed a nonce that an earlier one had used up: a copy of it runs somewhere, or "
            "it was restored from an image.",
        )
    yield from _certificate(agent, now)
    yield from _clock(agent)
    if agent.journal_id:
        yield Sentence(Code.JOURNAL, f"Its journal is {agent.journal_id}.")
    yield _work(work, now)


def _certificate(agent: AgentFacts, now: int) -> Iterator[Sentence]:
    if agent.certificate_expire_time is not None:
        ends = "ended" if agent.certificate_expire_time <= now else "ends"
        yield Sentence(
            Code.CERTIFICATE, f"Its certificate {ends} at {at(agent.certificate_expire_time, now)}."
        )


def _clock(agent: AgentFacts) -> Iterator[Sentence]:
    offset = agent.clock_offset
    if abs(offset) > CLOCK_TOLERANCE:
        where = "ahead of" if offset > 0 else "behind"
        yield Sentence(
            Code.CLOCK_OFFSET,
            f"Its clock was {length(abs(offset))} {where} the server's when its last session began.",
        )


def _work(work: OpenWork, now: int) -> Sentence:
    total = sum(work.counts.values())
    if not total:
        return Sentence(Code.NO_OPEN_WORK, "It has no tasks that are not final.")
    by_state = ", ".join(f"{count:,} {state}" for state, count in work.counts.items() if count)
    oldest = "" if work.oldest is None else f"; the oldest was created at {at(work.oldest, now)}"
    tasks = counted(total, "task that is", "tasks that are")
    return Sentence(Code.OPEN_WORK, f"It has {tasks} not final: {by_state}{oldest}.")


def _next(agent: AgentFacts, work: OpenWork, now: int) -> Iterator[NextStep]:
    if agent.presence == "ONLINE":
        heard = max(agent.last_seen_time or 0, agent.presence_time)
        text = f"It is STALE once {length(agent.stale_after)} went by without a beat."
        yield NextStep(Code.BECOMES_STALE, text, heard + agent.stale_after)
    else:
        certificate = agent.certificate_expire_time
        enrol = certificate is not None and certificate <= now
        how = "once it is enrolled again and opens a session" if enrol else "with its next session"
        yield NextStep(Code.BECOMES_ONLINE, f"It is ONLINE {how}.")
        if agent.presence == "STALE":
            due = offline_at(agent)
            when = "by the next sweep" if due <= now else f"at {at(due, now)}"
            text = f"Without a sign of life it is OFFLINE {when}."
            yield NextStep(Code.BECOMES_OFFLINE, text, max(due, now))
        yield from _skipped(agent, work, now)
    if work.expires is not None and work.expires <= now:
        text = "What was not begun in time ends as EXPIRED by the next sweep."
        yield NextStep(Code.QUEUE_EXPIRES, text, now)
    elif work.expires is not None:
        text = f"The first of what waits ends as EXPIRED at {at(work.expires, now)}, unless it is begun."
        yield NextStep(Code.QUEUE_EXPIRES, text, work.expires)
    ends = agent.certificate_expire_time
    if ends is not None and ends > now:
        how = "it renews it long before" if agent.online else "after that it must be enrolled again"
        yield NextStep(Code.CERTIFICATE_ENDS, f"Its certificate ends at {at(ends, now)}; {how}.", ends)


def _skipped(agent: AgentFacts, work: OpenWork, now: int) -> Iterator[NextStep]:
    if not work.skipping:
        return
    what = counted(work.skipping, "task that does", "tasks that do")
    ends = "ends" if work.skipping == 1 else "end"
    if agent.offline:
        text = f"{what} not wait for it {ends} as SKIPPED by the next sweep, unless it is back before."
        yield NextStep(Code.SKIPPED, text, now)
    else:
        yield NextStep(
            Code.SKIPPED, f"{what} not wait for it {ends} as SKIPPED then.", max(offline_at(agent), now)
        )


def _remedies(agent: AgentFacts, work: OpenWork, now: int) -> Iterator[Remedy]:
    certificate = agent.certificate_expire_time
    if not agent.online and certificate is not None and certificate <= now:
        yield Remedy(
            "Enrol it again, with a token that allows it",
            "fleetwright tokens create --max-uses 1 --allow-reenrollment",
        )
    elif agent.presence_reason == "NEVER_CONNECTED":
        yield Remedy("Start fleetwright-agent on the host, and see that it reaches the port for agents")
    elif not agent.online:
        yield Remedy("Look at the host: whether it is up, and at the log of fleetwright-agent there")
    if agent.suspected_clone:
        yield Remedy("Find the copy, and enrol it under an id of its own")
        yield Remedy("Then take away the suspicion", f"fleetwright agents clear-clone {agent.agent_id}")
    if abs(agent.clock_offset) > CLOCK_TOLERANCE:
        yield Remedy("Set the clock of the host, best by NTP")
    if sum(work.counts.values()):
        states = " ".join(f"--state {state}" for state, count in work.counts.items() if count)
        yield Remedy("See its work", f"fleetwright tasks list --agent {agent.agent_id} {states}")
    yield Remedy(
        "See what was sent to it and what came back", f"fleetwright tasks events --agent {agent.agent_id}"
    )
