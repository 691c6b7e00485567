"""The room's tables, and all SQL that touches them. Instants are microseconds."""
