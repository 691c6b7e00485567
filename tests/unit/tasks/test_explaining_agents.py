"""What is said of an agent, word for word."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fleetwright.v1 import agent_registry_service_pb2
from hypothesis import given
from hypothesis import strategies as st

from controlplane.tasks.explaining.rules import AgentFacts, Code, OpenWork, explain_agent
from controlplane.tasks.explaining.rules.presence import presence_sentence
from tests.unit.tasks import explaining_facts as facts
from tests.unit.tasks.explaining_facts import NOW, SECOND

ONLINE = replace(facts.ONLINE, clock_offset=20_000)
LOST = replace(
    ONLINE,
    presence="STALE",
    presence_reason="STREAM_LOST",
    presence_time=NOW - 60 * SECOND,
    last_seen_time=NOW - 64 * SECOND,
)
LATE = replace(LOST, presence_reason="HEARTBEAT_LATE", presence_detail="no beat for 64 s; interval 10 s")
OFFLINE = replace(LOST, presence="OFFLINE", presence_reason="SILENT", presence_detail="silent for 181 s")
ENDED = replace(
    OFFLINE, presence_reason="CERTIFICATE_ENDED", certificate_expire_time=NOW - SECOND, presence_detail=""
)
NEVER = replace(
    OFFLINE,
    presence_reason="NEVER_CONNECTED",
    presence_detail="",
    last_seen_time=None,
    session_epoch=0,
    journal_id="",
    certificate_expire_time=None,
)
NONE = OpenWork({})
SOME = OpenWork({"QUEUED": 2, "RUNNING": 1}, oldest=NOW - 120 * SECOND, expires=NOW + 3_600 * SECOND)

STREAM_LOST = (
    "agents/web-1 is STALE since 2023-11-14 22:12:20Z (1 min ago): its heartbeat stream "
    "ended without a Goodbye."
)
SEEN = "It was last heard of at 2023-11-14 22:12:16Z (1 min 4 s ago)."
CERTIFICATE = "Its certificate ends at 2023-11-15 22:13:20Z (in 1 d)."
OF_JOURNAL = "Its journal is j-1."
NO_WORK = "It has no tasks that are not final."
RENEWED = "Its certificate ends at 2023-11-15 22:13:20Z (in 1 d); it renews it long before."
LAPSES = "Its certificate ends at 2023-11-15 22:13:20Z (in 1 d); after that it must be enrolled again."
LAST_SESSION = "Its last session was number 5."

CASES: dict[str, tuple[AgentFacts, OpenWork, list[str], list[str]]] = {
    "online": (
        ONLINE,
        NONE,
        [
            "agents/web-1 is ONLINE since 2023-11-14 21:13:20Z (1 h ago): it opened a session.",
            "It was last heard of at 2023-11-14 22:13:16Z (4 s ago).",
            "Its session is number 5.",
            CERTIFICATE,
            OF_JOURNAL,
            NO_WORK,
        ],
        ["It is STALE once 45 s went by without a beat.", RENEWED],
    ),
    "online with work": (
        ONLINE,
        SOME,
        [
            "agents/web-1 is ONLINE since 2023-11-14 21:13:20Z (1 h ago): it opened a session.",
            "It was last heard of at 2023-11-14 22:13:16Z (4 s ago).",
            "Its session is number 5.",
            CERTIFICATE,
            OF_JOURNAL,
            "It has 3 tasks that are not final: 2 QUEUED, 1 RUNNING; the oldest was created at "
            "2023-11-14 22:11:20Z (2 min ago).",
        ],
        [
            "It is STALE once 45 s went by without a beat.",
            "The first of what waits ends as EXPIRED at 2023-11-14 23:13:20Z (in 1 h), unless it is begun.",
            RENEWED,
        ],
    ),
    "stale, stream lost": (
        LOST,
        NONE,
        [
            STREAM_LOST,
            SEEN,
            LAST_SESSION,
            CERTIFICATE,
            OF_JOURNAL,
            NO_WORK,
        ],
        [
            "It is ONLINE with its next session.",
            "Without a sign of life it is OFFLINE at 2023-11-14 22:15:20Z (in 2 min).",
            LAPSES,
        ],
    ),
    "stale, beats late": (
        LATE,
        NONE,
        [
            "agents/web-1 is STALE since 2023-11-14 22:12:20Z (1 min ago): no beat for 64 s; interval 10 s.",
            SEEN,
            LAST_SESSION,
            CERTIFICATE,
            OF_JOURNAL,
            NO_WORK,
        ],
        [
            "It is ONLINE with its next session.",
            "Without a sign of life it is OFFLINE at 2023-11-14 22:15:16Z (in 1 min 56 s).",
            LAPSES,
        ],
    ),
    "offline with work that is late": (
        OFFLINE,
        OpenWork({"QUEUED": 1}, oldest=NOW - 120 * SECOND, expires=NOW - SECOND),
        [
            "agents/web-1 is OFFLINE since 2023-11-14 22:12:20Z (1 min ago): silent for 181 s.",
            SEEN,
            LAST_SESSION,
            CERTIFICATE,
            OF_JOURNAL,
            "It has 1 task that is not final: 1 QUEUED; the oldest was created at 2023-11-14 22:11:20Z "
            "(2 min ago).",
        ],
        [
            "It is ONLINE with its next session.",
            "What was not begun in time ends as EXPIRED by the next sweep.",
            LAPSES,
        ],
    ),
    "offline, certificate ended": (
        ENDED,
        NONE,
        [
            "agents/web-1 is OFFLINE since 2023-11-14 22:12:20Z (1 min ago): its certificate expired or was "
            "revoked.",
            SEEN,
            LAST_SESSION,
            "Its certificate ended at 2023-11-14 22:13:19Z (1 s ago).",
            OF_JOURNAL,
            NO_WORK,
        ],
        ["It is ONLINE once it is enrolled again and opens a session."],
    ),
    "stale with work that does not wait": (
        LOST,
        OpenWork({"QUEUED": 2}, oldest=NOW - 120 * SECOND, expires=NOW + 3_600 * SECOND, skipping=2),
        [
            STREAM_LOST,
            SEEN,
            LAST_SESSION,
            CERTIFICATE,
            OF_JOURNAL,
            "It has 2 tasks that are not final: 2 QUEUED; the oldest was created at 2023-11-14 22:11:20Z "
            "(2 min ago).",
        ],
        [
            "It is ONLINE with its next session.",
            "Without a sign of life it is OFFLINE at 2023-11-14 22:15:20Z (in 2 min).",
            "2 tasks that do not wait for it end as SKIPPED then.",
            "The first of what waits ends as EXPIRED at 2023-11-14 23:13:20Z (in 1 h), unless it is begun.",
            LAPSES,
        ],
    ),
    "offline with work that does not wait": (
        OFFLINE,
        OpenWork({"QUEUED": 1}, skipping=1),
        [
            "agents/web-1 is OFFLINE since 2023-11-14 22:12:20Z (1 min ago): silent for 181 s.",
            SEEN,
            LAST_SESSION,
            CERTIFICATE,
            OF_JOURNAL,
            "It has 1 task that is not final: 1 QUEUED.",
        ],
        [
            "It is ONLINE with its next session.",
            "1 task that does not wait for it ends as SKIPPED by the next sweep, unless it is back before.",
            LAPSES,
        ],
    ),
    "never connected": (
        NEVER,
        NONE,
        [
            "agents/web-1 is enrolled since 2023-11-14 22:12:20Z (1 min ago) and has never connected.",
            NO_WORK,
        ],
        ["It is ONLINE with its next session."],
    ),
    "suspected clone with a wrong clock": (
        replace(ONLINE, suspected_clone=True, clock_offset=-125 * SECOND),
        NONE,
        [
            "agents/web-1 is ONLINE since 2023-11-14 21:13:20Z (1 h ago): it opened a session.",
            "It was last heard of at 2023-11-14 22:13:16Z (4 s ago).",
            "Its session is number 5.",
            "A session of it showed a nonce that an earlier one had used up: a copy of it runs somewhere, or "
            "it was restored from an image.",
            CERTIFICATE,
            "Its clock was 2 min 5 s behind the server's when its last session began.",
            OF_JOURNAL,
            NO_WORK,
        ],
        ["It is STALE once 45 s went by without a beat.", RENEWED],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_an_agent_is_explained_in_these_words(case: str) -> None:
    agent, work, because, next_steps = CASES[case]
    explanation = explain_agent(agent, work, NOW)
    assert [sentence.text for sentence in explanation.because] == because
    assert [step.text for step in explanation.next_steps] == next_steps
    assert explanation.since == agent.presence_time


@pytest.mark.parametrize(
    ("case", "remedies"),
    {
        "online": ["fleetwright tasks events --agent web-1"],
        "online with work": [
            "fleetwright tasks list --agent web-1 --state QUEUED --state RUNNING",
            "fleetwright tasks events --agent web-1",
        ],
        "stale, stream lost": [
            "Look at the host: whether it is up, and at the log of fleetwright-agent there",
            "fleetwright tasks events --agent web-1",
        ],
        "offline, certificate ended": [
            "fleetwright tokens create --max-uses 1 --allow-reenrollment",
            "fleetwright tasks events --agent web-1",
        ],
        "never connected": [
            "Start fleetwright-agent on the host, and see that it reaches the port for agents",
            "fleetwright tasks events --agent web-1",
        ],
        "suspected clone with a wrong clock": [
            "Find the copy, and enrol it under an id of its own",
            "fleetwright agents clear-clone web-1",
            "Set the clock of the host, best by NTP",
            "fleetwright tasks events --agent web-1",
        ],
    }.items(),
)
def test_an_administrator_is_told_what_to_do(case: str, remedies: list[str]) -> None:
    agent, work, _, _ = CASES[case]
    found = explain_agent(agent, work, NOW).remedies
    assert [remedy.command or remedy.text for remedy in found] == remedies


@pytest.mark.parametrize("name", agent_registry_service_pb2.PresenceReason.keys())
def test_every_reason_of_the_contract_has_words(name: str) -> None:
    reason = name.removeprefix("PRESENCE_REASON_")
    text = presence_sentence(replace(OFFLINE, presence_reason=reason, presence_detail=""), NOW).text
    # A deleted agent is explained to nobody.
    assert (text == "agents/web-1 is OFFLINE since 2023-11-14 22:12:20Z (1 min ago).") is (
        reason in {"UNSPECIFIED", "DELETED"}
    )


@pytest.mark.parametrize(
    ("detail", "said"),
    [
        ("", "it said Goodbye."),
        ("the agent said goodbye", "the agent said goodbye."),
        ("the host is shut down.", "it said Goodbye: the host is shut down."),
    ],
)
def test_a_goodbye_is_told_once_with_the_reason_that_the_agent_gave(detail: str, said: str) -> None:
    agent = replace(OFFLINE, presence_reason="GOODBYE", presence_detail=detail)
    assert presence_sentence(agent, NOW).text.endswith(f"(1 min ago): {said}")


@given(
    agent=st.sampled_from([agent for agent, _, _, _ in CASES.values()]),
    work=st.sampled_from([NONE, SOME]),
    ago=st.integers(0, 1_000),
)
def test_whatever_is_promised_is_not_over_unless_it_overstays(
    agent: AgentFacts, work: OpenWork, ago: int
) -> None:
    explanation = explain_agent(replace(agent, presence_time=NOW - ago * SECOND), work, NOW)
    assert explanation.because
    assert explanation.next_steps
    late = [s.code for s in explanation.next_steps if s.latest is not None and s.latest < NOW]
    # Beats are written every few seconds, so an agent may look silent for a moment.
    assert set(late) <= {Code.BECOMES_STALE}
