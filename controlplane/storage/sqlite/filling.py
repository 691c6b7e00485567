"""A failpoint that lasts: while a file is there, the database may not grow, as on a disk that is full.

Armed by the word ``database.full`` among the failpoints; then the file ``database-full`` in the data folder
is the switch. It is looked for at the beginning of each transaction that writes, and what SQLite is told is
``max_page_count``: it answers with the same error as on a full disk, and goes on when the limit is lifted.
For machines on which a test may not mount a small file system.
"""

from __future__ import annotations

from pathlib import Path

WORD = "database.full"
SWITCH = "database-full"

_MOST = 1_073_741_823
"""What SQLite allows by itself, in its oldest version that we run on."""

_armed: set[str] = set()


def arm(specification: str) -> str:
    """Arm it where ``specification`` of failpoints has the word; return what else that has."""
    words = specification.split(",")
    _armed.clear()
    _armed.update({WORD} & set(words))
    return ",".join(word for word in words if word != WORD)


def switch_of(database: Path) -> Path | None:
    """Return the file that fills ``database``; None where that is not armed."""
    return database.with_name(SWITCH) if _armed else None


def limit(switch: Path) -> str:
    """Return the statement that lets the database grow, or keeps it as large as it is."""
    return f"PRAGMA max_page_count={1 if switch.exists() else _MOST}"
