"""What rooms and listeners are told of the settings, each in its own words."""

from __future__ import annotations

from controlplane.agents.rules import HealthLimits
from controlplane.sessions import rules as session_rules
from controlplane.sessions.limits import SessionPolicy
from controlplane.settings import Settings
from controlplane.transport.channel_options import AGENT_MESSAGE_BYTES
from controlplane.transport.listeners import Limits, Material
from controlplane.transport.tls import TlsMaterial
from controlplane.trust.layout import ServerTrust


def session_policy(settings: Settings) -> SessionPolicy:
    """Return the numbers of the sessions room."""
    return SessionPolicy(
        max_sessions=settings.max_agents,
        heartbeat_interval=settings.heartbeat_interval,
        beats_per_second=settings.max_beats_per_second,
        telemetry_interval=settings.telemetry_interval,
        tasks_linger=settings.tasks_linger,
        telemetry_linger=settings.telemetry_linger,
        slow_reader_after=settings.slow_reader_after,
        first_message_after=settings.handshake_timeout,
        drain_window=settings.drain_window,
        max_message_bytes=AGENT_MESSAGE_BYTES,
        max_credits=settings.max_credits,
        telemetry_budget=settings.telemetry_budget,
    )


def health_limits(settings: Settings) -> HealthLimits:
    """Return after which silence an agent is STALE, and after which OFFLINE."""
    return HealthLimits(settings.heartbeat_interval, settings.stale_after, settings.offline_after)


def limits(settings: Settings) -> Limits:
    """Return what the listeners hold their peers to."""
    return Limits(
        handshake_timeout=settings.handshake_timeout,
        keepalive=session_rules.ping_interval(settings.max_agents, settings.keepalive_interval),
        ping_timeout=settings.ping_timeout,
        max_connection_age=settings.max_connection_age,
        max_agents=settings.max_agents,
    )


def material(trust: ServerTrust) -> Material:
    """Return the TLS material of the listeners."""
    key = trust.server_key_pem
    return Material(
        agents=TlsMaterial(key, trust.agents_chain_pem, trust.agents.certificate_pem),
        admin=TlsMaterial(key, trust.operators_chain_pem, trust.operators.certificate_pem),
        enrollment=TlsMaterial(key, trust.agents_chain_pem, None),
    )
