"""A database that is kept from growing, as on a full disk, and then is not."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import text

from controlplane.errors import Unavailable
from controlplane.storage.sqlite import filling
from controlplane.storage.sqlite.database import SqliteDatabase
from controlplane.storage.unit_of_work import UnitOfWork

LARGE = 1 << 20


@pytest.fixture
def armed() -> Iterator[None]:
    filling.arm(filling.WORD)
    yield
    filling.arm("")


async def _make(work: UnitOfWork) -> None:
    await work.connection.execute(text("CREATE TABLE loads (load BLOB)"))


async def _write(size: int, work: UnitOfWork) -> None:
    await work.connection.execute(text("INSERT INTO loads VALUES (zeroblob(:size))"), {"size": size})


@pytest.mark.usefixtures("armed")
async def test_it_refuses_what_needs_room_while_the_switch_is_there_and_goes_on_after(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "full.db")
    try:
        await database.transact(_make)
        await database.transact(partial(_write, LARGE))
        (tmp_path / filling.SWITCH).touch()
        with pytest.raises(Unavailable, match="disk is full"):
            await database.transact(partial(_write, LARGE))
        (tmp_path / filling.SWITCH).unlink()
        await database.transact(partial(_write, LARGE))
    finally:
        await database.close()


async def test_the_switch_does_nothing_where_it_is_not_armed(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "free.db")
    try:
        await database.transact(_make)
        (tmp_path / filling.SWITCH).touch()
        await database.transact(partial(_write, LARGE))
    finally:
        await database.close()


def test_other_failpoints_are_left_to_whom_they_belong() -> None:
    assert filling.arm("tasks.after_create=kill@1,database.full,writer.after_commit=stop@2") == (
        "tasks.after_create=kill@1,writer.after_commit=stop@2"
    )
    assert filling.switch_of(Path("site/x.db")) == Path("site/database-full")
    assert filling.arm("") == ""
    assert filling.switch_of(Path("site/x.db")) is None
