"""What an agent must not forget: the journal's port, one in a SQLite file, one in memory."""

from agent_sim.protocol.journal.memory import MemoryJournal
from agent_sim.protocol.journal.port import (
    DEFAULT_MAX_ATTEMPTS,
    DEFAULT_MAX_POINTS,
    MAX_CHUNK_BYTES,
    Journal,
    JournalEntry,
    OutputRecord,
    PointRange,
)
from agent_sim.protocol.journal.sqlite import SQLiteJournal

__all__ = [
    "DEFAULT_MAX_ATTEMPTS",
    "DEFAULT_MAX_POINTS",
    "MAX_CHUNK_BYTES",
    "Journal",
    "JournalEntry",
    "MemoryJournal",
    "OutputRecord",
    "PointRange",
    "SQLiteJournal",
]
