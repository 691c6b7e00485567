"""The room's tables and every SQL statement of it."""
