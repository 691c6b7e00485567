"""Leave to take back agents that got a certificate which the restored database does not know.

A restore brings back the database of the time of its backup. Certificates that were issued
since are signed by our root and unknown, and are refused like stolen ones. Who restores may
say that those are to be taken over for a time: this is the file that says so. It lies in the
data folder and not in the database, so that no backup carries it on; to take the leave back,
stop the server and remove the file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from controlplane.trust.files import write_file
from controlplane.trust.layout import DataFolderError, read

ADOPTION_FILE = "adopt-certificates.json"
"""Its name in the data folder."""


@dataclass(frozen=True, slots=True)
class Adoption:
    """What was restored when, and until when unknown certificates of enrolled agents are taken over."""

    backup_time: datetime
    restore_time: datetime
    until: datetime


def allow_adoption(folder: Path, backup_time: datetime, now: datetime, life: timedelta) -> Adoption:
    """Write the leave into ``folder``, for one ``life`` of agents' certificates from ``now`` on.

    For who puts a backup in place, before a server starts on it; ``folder`` is the data
    folder, or the one that becomes it. What it gives up: an agent that was deleted, or whose
    certificate was revoked, after the backup is let in again, as the database says. Durable
    when it returns. Raises ``OSError``.
    """
    adoption = Adoption(backup_time, now, now + life)
    content = {
        "backup_time": backup_time.isoformat(),
        "restore_time": now.isoformat(),
        "until": adoption.until.isoformat(),
    }
    write_file(folder / ADOPTION_FILE, json.dumps(content, indent=1).encode() + b"\n")
    return adoption


def load_adoption(folder: Path) -> Adoption | None:
    """Return the leave of a data folder, over or not; None where there is none.

    Raises ``DataFolderError`` where it cannot be read: nobody is let in by guessing.
    """
    path = folder / ADOPTION_FILE
    if not path.exists():
        return None
    try:
        content = json.loads(read(path))
        backup_time, restore_time, until = (
            datetime.fromisoformat(content[name]) for name in ("backup_time", "restore_time", "until")
        )
        if None in (backup_time.tzinfo, restore_time.tzinfo, until.tzinfo):
            raise ValueError("a time has no zone")
    except (ValueError, KeyError, TypeError) as error:
        raise DataFolderError(
            f"{path}: cannot be read ({error}): remove it, or restore the backup again"
        ) from error
    return Adoption(backup_time, restore_time, until)
