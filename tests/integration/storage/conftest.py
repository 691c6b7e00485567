"""The engine is tried on both databases."""

from tests.support.databases import location as location
from tests.support.databases import migrated as migrated
