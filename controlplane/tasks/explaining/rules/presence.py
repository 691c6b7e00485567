"""An agent's presence in words, for its own explanation and those of its tasks."""

from __future__ import annotations

from controlplane.tasks.explaining.rules.facts import AgentFacts
from controlplane.tasks.explaining.rules.said import Code, Sentence, at, clause

_REASONS = {
    "SESSION_OPENED": "it opened a session",
    "HEARTBEAT_RESUMED": "its beats came again",
    "HEARTBEAT_LATE": "its beats are late",
    "STREAM_LOST": "its heartbeat stream ended without a Goodbye",
    "SILENT": "it was silent for too long",
    "GOODBYE": "it said Goodbye",
    "SERVER_ENDED": "the server process that held its session ended",
    "CERTIFICATE_ENDED": "its certificate expired or was revoked",
}
_CODES = {"ONLINE": Code.AGENT_ONLINE, "STALE": Code.AGENT_STALE}


def presence_sentence(agent: AgentFacts, now: int, more: str = "") -> Sentence:
    """Return since when an agent has its presence and why; ``more`` ends the sentence."""
    name = f"agents/{agent.agent_id}"
    if agent.presence_reason == "NEVER_CONNECTED":
        since = at(agent.presence_time, now)
        text = f"{name} is enrolled since {since} and has never connected{more}."
        return Sentence(Code.AGENT_NEVER_CONNECTED, text)
    text = f"{name} is {agent.presence} since {at(agent.presence_time, now)}{clause(_why(agent))}{more}."
    return Sentence(_CODES.get(agent.presence, Code.AGENT_OFFLINE), text)


def _why(agent: AgentFacts) -> str:
    reason, detail = _REASONS.get(agent.presence_reason, ""), agent.presence_detail
    if agent.presence_reason == "GOODBYE" and detail and "goodbye" not in detail.lower():
        return f"{reason}: {detail}"  # what the agent itself gave as its reason
    return detail or reason


def offline_at(agent: AgentFacts) -> int:
    """Return when an agent that is STALE is OFFLINE without a sign of life, in microseconds."""
    # As agents.rules counts: late beats from the last beat, an ended stream or server from its end.
    heard = agent.last_seen_time or 0
    if agent.presence_reason == "HEARTBEAT_LATE":
        silent_since = heard or agent.presence_time
    else:
        silent_since = max(heard, agent.presence_time)
    return silent_since + agent.offline_after
