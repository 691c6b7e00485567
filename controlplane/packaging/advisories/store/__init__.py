"""The tables of the advisories, and all SQL that touches them. Instants are microseconds."""
