"""Data folders for tests: initialised and migrated once, copied for each test."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Collection
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from controlplane.storage import migrate
from controlplane.trust import setup
from controlplane.trust.layout import DATABASE

Tables = dict[str, list[tuple[Any, ...]]]


def make_folder(folder: Path) -> Path:
    """Do what ``fleetwright init`` and the first start do to a folder."""
    setup.init(folder, "fleetwright.local", [], datetime.now(UTC))
    migrate.upgrade(folder / DATABASE)
    return folder


def copy_folder(template: Path, folder: Path) -> Path:
    """Copy a folder that no server uses."""
    return Path(shutil.copytree(template, folder))


def tables(folder: Path, ignoring: Collection[str] = ()) -> Tables:
    """Return every row of every table that is not in ``ignoring``, as the last commit left them."""
    with closing(sqlite3.connect(f"file:{folder / DATABASE}?mode=ro", uri=True)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        wanted = [name for (name,) in names.fetchall() if name not in ignoring]
        return {
            name: sorted(connection.execute(f'SELECT * FROM "{name}"').fetchall(), key=repr)
            for name in wanted
        }
