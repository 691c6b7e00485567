"""The fleet's summary, as a program reads it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from agent_sim.fleet.counters import Counters
from agent_sim.fleet.machine import usage


def summarise(counters: Counters, seconds: float) -> dict[str, Any]:
    """Return the totals, JSON-ready. ``simulated`` is true: no host behind these numbers exists."""
    used = usage()
    return {
        "simulated": True,
        "agents": counters.agents,
        "enrolled": counters.enrolled,
        "connected": counters.connected,
        "peak_connected": counters.peak_connected,
        "connected_once": counters.connected_once,
        "stopped_early": counters.stopped_early,
        "sessions": counters.sessions,
        "reconnects": counters.reconnects,
        "renewals": counters.renewals,
        "assignments_received": counters.assignments_received,
        "effects": counters.effects,
        "attempts_finished": dict(counters.finished),
        "results_acknowledged": dict(counters.results_acknowledged),
        "telemetry_points_sent": counters.points_sent,
        "telemetry_points_acknowledged": counters.points_acknowledged,
        "telemetry_points_dropped": counters.points_dropped,
        "disconnects_by_reason": dict(counters.disconnects),
        "errors_by_reason": dict(counters.errors),
        "beats_answered": counters.beats_answered,
        "beat_p50_ms": counters.latency_ms(0.5),
        "beat_p99_ms": counters.latency_ms(0.99),
        "seconds": round(seconds, 3),
        "cpu_seconds": round(used.cpu_seconds, 3),
        "rss_bytes": used.rss_bytes,
        "rss_bytes_per_agent": used.rss_bytes // max(1, counters.agents),
    }


def write_atomically(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` as JSON so that whoever sees the file sees all of it."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    beside.write_text(json.dumps(content) + "\n")
    os.replace(beside, path)
