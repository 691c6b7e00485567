"""Fixtures of a real server and a real PostgreSQL."""

from tests.support.fixtures import folder, template
from tests.support.postgres import database_url, postgres

__all__ = ["database_url", "folder", "postgres", "template"]
