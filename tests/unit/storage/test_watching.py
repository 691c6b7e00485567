"""Following rows in the order of commits: nothing lost between two looks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.storage import watching
from controlplane.storage.database import Look
from controlplane.storage.watching import Change, Cursor, Seen, watch
from controlplane.wakeups import WakeUps


@dataclass
class Rows:
    """A table in memory; ``between`` runs at each read, after what it returns was looked up."""

    wakeups: WakeUps = field(default_factory=WakeUps)
    rows: dict[str, tuple[int, str]] = field(default_factory=dict)
    revision: int = 0
    between: Callable[[], None] = lambda: None
    wanted: str = "x"

    def commit(self, *idents: str, value: str = "x", wake: bool = True) -> None:
        self.revision += 1
        for ident in idents:
            self.rows[ident] = (self.revision, value)
        if wake:
            self.wakeups.notify("rows")

    async def read(self, after: Cursor, limit: int) -> Look[Seen[str]]:
        places = sorted((revision, ident) for ident, (revision, _) in self.rows.items())
        above = [place for place in places if place > after][:limit]
        found = [Seen(ident, (rev, ident), self.rows[ident][1] == self.wanted) for rev, ident in above]
        self.between()
        return Look(found)

    def watch(self, resume: Cursor | None = None) -> AsyncGenerator[tuple[Change, str | None, Cursor], None]:
        return watch(self.wakeups, "rows", resume, self.read)


async def take(
    changes: AsyncGenerator[tuple[Change, str | None, Cursor], None], count: int
) -> list[tuple[Change, str | None]]:
    return [(await asyncio.wait_for(anext(changes), 10))[:2] for _ in range(count)]


async def test_a_watch_that_sent_more_than_it_remembers_still_reports_what_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watching, "REMEMBERED", 2)
    rows = Rows()
    rows.commit("a", "b", "c")
    async with aclosing(rows.watch()) as changes:
        assert [change for change, _ in await take(changes, 4)] == [Change.EXISTING] * 3 + [Change.SYNCED]
        rows.commit("a", "c", value="y")
        assert await take(changes, 2) == [(Change.REMOVED, "a"), (Change.REMOVED, "c")]


async def test_a_row_that_changes_between_the_read_and_the_wait_is_seen() -> None:
    rows = Rows()
    rows.commit("a")
    late = iter(["b", "c"])

    def between() -> None:
        for ident in late:
            rows.commit(ident)
            break

    rows.between = between
    async with aclosing(rows.watch()) as changes:
        assert await take(changes, 4) == [
            (Change.EXISTING, "a"),
            (Change.SYNCED, None),
            (Change.CHANGED, "b"),
            (Change.CHANGED, "c"),
        ]


async def test_rows_of_one_commit_that_span_pages_are_all_seen() -> None:
    rows = Rows()
    idents = [f"{number:05}" for number in range(2 * watching.PAGE + 7)]
    rows.commit(*idents)
    async with aclosing(rows.watch()) as changes:
        seen = await take(changes, len(idents) + 1)
    assert seen == [(Change.EXISTING, ident) for ident in idents] + [(Change.SYNCED, None)]


async def test_a_lost_wake_up_loses_no_row() -> None:
    rows = Rows()
    async with aclosing(rows.watch()) as changes:
        assert await take(changes, 1) == [(Change.SYNCED, None)]
        rows.commit("a", wake=False)
        rows.commit("b")
        assert await take(changes, 2) == [(Change.CHANGED, "a"), (Change.CHANGED, "b")]


async def test_only_what_this_watch_has_sent_is_removed() -> None:
    rows = Rows()
    rows.commit("mine")
    rows.commit("other", value="y")
    async with aclosing(rows.watch()) as changes:
        assert await take(changes, 2) == [(Change.EXISTING, "mine"), (Change.SYNCED, None)]
        rows.commit("other", value="z")
        rows.commit("mine", value="y")
        rows.commit("mine", value="z")
        rows.commit("new")
        assert await take(changes, 2) == [(Change.REMOVED, "mine"), (Change.CHANGED, "new")]


async def test_a_resumed_watch_tells_of_every_row_that_no_longer_matches() -> None:
    rows = Rows()
    rows.commit("a")
    async with aclosing(rows.watch()) as changes:
        await anext(changes)
        *_, cursor = await anext(changes)
    rows.commit("a", value="y")
    rows.commit("b")
    async with aclosing(rows.watch(cursor)) as changes:
        assert await take(changes, 2) == [(Change.REMOVED, "a"), (Change.CHANGED, "b")]


class AllSeenError(Exception):
    """Nothing is above the cursor, and nothing more will be committed."""


@settings(max_examples=60, deadline=None)
@given(
    commits=st.lists(st.tuples(st.sets(st.sampled_from("abcdef"), min_size=1), st.sampled_from("xy"))),
    breaks=st.sets(st.integers(1, 12)),
    page=st.integers(1, 4),
)
def test_a_watch_that_is_broken_off_and_resumed_ends_up_with_what_matches(
    commits: list[tuple[set[str], str]], breaks: set[int], page: int
) -> None:
    rows, pending = Rows(), list(commits)

    async def read(after: Cursor, limit: int) -> Look[Seen[str]]:
        found = await rows.read(after, limit)
        if pending:
            idents, value = pending.pop(0)
            rows.commit(*sorted(idents), value=value)
        elif not found.rows:
            raise AllSeenError
        rows.wakeups.notify("rows")
        return found

    async def play() -> set[str]:
        mirror: set[str] = set()
        cursor: Cursor | None = None
        seen = 0
        while True:
            begun = watch(rows.wakeups, "rows", cursor, read)
            async with aclosing(begun) as changes:
                try:
                    async for change, ident, place in changes:
                        cursor = place
                        if ident is not None:
                            (mirror.discard if change is Change.REMOVED else mirror.add)(ident)
                        seen += 1
                        if seen in breaks:
                            break
                except AllSeenError:
                    return mirror

    before, watching.PAGE = watching.PAGE, page
    try:
        mirror = asyncio.run(play())
    finally:
        watching.PAGE = before
    assert mirror == {ident for ident, (_, value) in rows.rows.items() if value == rows.wanted}
