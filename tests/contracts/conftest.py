"""Every store is tried on both databases: SQLite, and a real PostgreSQL in the slow half of the suite."""

from tests.support.databases import location as location
from tests.support.databases import migrated as migrated
