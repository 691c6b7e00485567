"""What an agent's engine is told before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

PROTOCOL_VERSION = 1
"""Version of the contract that this engine speaks."""


@dataclass(frozen=True)
class AgentConfig:
    """Settings of one engine; every one but the version has a default that suits a real host."""

    agent_version: str
    """Version of the agent's software, for people; 1 to 64 characters."""
    addresses: tuple[str, ...] = ()
    """Server addresses, ``host:port``, tried in turn; empty for those that enrolment gave."""
    concurrency: int = 4
    """How many attempts run at the same time. No more are taken than can run: the server counts an
    attempt's run limit from its acceptance, so one that waited here would be given up for it."""
    http_proxy: str | None = None
    """``http://host:port`` of a CONNECT proxy; the environment's proxy is never used by itself."""
    backoff_base: timedelta = timedelta(seconds=1)
    """Upper bound of the first delay after a failure; it doubles with each further one."""
    backoff_cap: timedelta = timedelta(minutes=2)
    """Upper bound of every delay."""
    stable_after: timedelta = timedelta(minutes=1)
    """How long a session must have lived for the backoff to start from its base again."""
    welcome_timeout: timedelta = timedelta(seconds=60)
    """How long to wait for Welcome, connecting included."""
    stop_grace: timedelta = timedelta(seconds=5)
    """How long an orderly stop waits for results to be acknowledged, and for streams to end."""
    renewal_jitter: float = 0.05
    """Share of the certificate's life by which renewal is spread, so that a fleet does not renew at once."""
    identity_tries: int = 3
    """How often a refused identity is tried again before the engine gives up."""
    answer_within: timedelta = timedelta(seconds=18)
    """How long a beat may stay unanswered before the session counts as lost. With the 11 s between two beats
    of a fleet of up to 10,000 agents, a server that has stopped answering is noticed within 30 s."""
    room_interval: timedelta = timedelta(seconds=5)
    """How often a journal on a full disk is asked whether it can be written again."""
