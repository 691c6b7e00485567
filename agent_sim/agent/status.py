"""What ``fleetwright-agent status`` tells: who this agent is, and what waits in its journal."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from agent_sim.agent.installing.ledger import LedgerError, installed_in
from agent_sim.agent.running import read_running
from agent_sim.agent.state import StateError, StateFolder
from agent_sim.protocol.identity import AgentIdentity
from agent_sim.protocol.identity_folder import FolderIdentityStore
from agent_sim.protocol.journal.schema import set_aside


def read_status(state: StateFolder, now: datetime) -> dict[str, Any]:
    """Return the status as JSON-ready values; times are ISO 8601 in UTC.

    Reads only, and so may run beside the agent, whose journal no one else can
    open: its counts are then what the agent said last, or None in its first
    second. Raises ``StateError`` and
    ``IdentityError``.
    """
    store = FolderIdentityStore(state.path)
    identity = store.current()
    if identity is None:
        raise StateError(f"{state.path}: holds no identity; enrol first with `fleetwright-agent enroll`")
    holder = state.holder()
    said = read_running(state.running) if holder is not None else None
    return {
        "state": str(state.path),
        "running_process": holder,
        "connected": bool(said and said.get("connected")),
        "session_epoch": said.get("session_epoch") if said else None,
        "disk_full": bool(said and said.get("disk_full")),
        "agent_id": identity.agent_id,
        "spiffe_id": identity.spiffe_id,
        "agent_addresses": list(identity.agent_addresses),
        "certificate": _certificate(identity, now),
        "next_certificate": store.next() is not None,
        "journals_set_aside": [path.name for path in set_aside(state.journal)],
        "journal": read_journal(state.journal) if holder is None else (said or {}).get("journal"),
        "trusted_root": str(state.trusted_root) if state.trusted_root.exists() else None,
        "packages": _packages(state),
    }


def _packages(state: StateFolder) -> list[dict[str, str]]:
    try:
        installed = installed_in(state.packages)
    except LedgerError as error:
        raise StateError(str(error)) from error
    return [
        {"name": one.name, "version": one.version, "way": one.way, "sha256": one.sha256} for one in installed
    ]


def _certificate(identity: AgentIdentity, now: datetime) -> dict[str, Any]:
    return {
        "serial": f"{identity.serial_number:x}",
        "not_before": identity.not_before.isoformat(),
        "not_after": identity.not_after.isoformat(),
        "renew_after": identity.renew_after.isoformat(),
        "expired": identity.not_after < now,
    }


def read_journal(path: Path) -> Mapping[str, int]:
    """Count what waits in the journal at ``path``; all is 0 where there is none yet.

    Raises ``StateError`` where it is damaged. Opened read-only, because opening
    it as the agent does declares what runs interrupted.
    """
    counts = {"journaled": 0, "running": 0, "finished": 0, "queued_points": 0}
    if not path.exists():
        return counts
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)) as db:
            for attempt_state, count in db.execute("SELECT state, count(*) FROM attempts GROUP BY state"):
                counts[str(attempt_state)] = count
            counts["queued_points"] = db.execute("SELECT count(*) FROM points").fetchone()[0]
    except sqlite3.Error as error:
        raise StateError(f"{path}: cannot be read: {error}; see the agent's log") from error
    return counts
