"""SQLite: embedded, for sites with one process."""
