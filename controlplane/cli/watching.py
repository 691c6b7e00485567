"""Watches on the command line: drawn again and again on a terminal, a line for each change elsewhere.

A watch that loses its server is begun again where it was, and says so on standard error.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

import grpc
from fleetwright.errors import Failure
from fleetwright.v1.agent_registry_service_pb2 import (
    CHANGE_TYPE_REMOVED,
    CHANGE_TYPE_SYNCED,
    ChangeType,
)
from fleetwright.watching import Change, follow
from rich.cells import cell_len
from rich.console import Group
from rich.live import Live
from rich.text import Text

from controlplane.cli.connection import Client
from controlplane.cli.output import Column, Output, aligned, clean, table
from controlplane.cli.values import enum_name

ChangeT = TypeVar("ChangeT", bound=Change)
ColumnsAt = Callable[[datetime], Sequence[Column[Any]]]
"""The columns at a time, from which they count ages."""

_CHANGE = Column[int]("CHANGE", lambda kind: enum_name(ChangeType.DESCRIPTOR, kind))
_FRAMES_PER_SECOND = 4
_SETTLED = 0.3
"""Seconds after which what watches a connection runs, so that the connection may be closed."""

_AROUND_THE_TABLE = 4
"""Lines of a terminal that the live table leaves: its head, its foot, and the prompt before it."""


@dataclass(frozen=True)
class Watched:
    """What a watch is about: the field of its messages, and how an item is shown."""

    field: str
    columns: ColumnsAt
    plural: str
    has_kinds: bool = True
    """Whether messages say what kind of change they are, and when all that there was has been sent."""


def watch(
    client: Client, output: Output, start: Callable[[str], Iterable[ChangeT]], watched: Watched
) -> None:
    """Show every change of a watch until Ctrl-C; ``start`` opens it at a resume token.

    Raises ``grpc.RpcError`` as ``fleetwright.watching.follow`` does.
    """
    with _screen(output, watched) as screen:
        for change in following(client, start, screen.note):
            screen.show(change)


def following(
    client: Client, start: Callable[[str], Iterable[ChangeT]], note: Callable[[str], None]
) -> Iterator[ChangeT]:
    """Yield every change of a watch, and tell ``note`` when its server is lost and when it is back.

    A server that is back is not waited for any longer, unless it said itself when to come.
    """
    away, ready = threading.Event(), threading.Event()
    telling = threading.Lock()
    asked = False

    def lost(failure: Failure, wait: timedelta) -> None:
        nonlocal asked
        ready.clear()  # a connection that stood all the time is not what was lost, and makes no haste
        away.set()
        asked = failure.retry_after is not None
        why = failure.message if failure.reason else "the server went away, or cannot be reached"
        note(f"connection lost ({why}); trying again in {wait.total_seconds():.1f} s")

    def back() -> None:
        with telling:
            if away.is_set():
                away.clear()
                note("connected again")

    def connectivity(state: grpc.ChannelConnectivity) -> None:
        # From a thread of gRPC's. It may be long until something changes, so this cannot wait for that.
        if state is grpc.ChannelConnectivity.READY:
            ready.set()
            back()

    def wait(seconds: float) -> None:
        if asked:
            time.sleep(seconds)
        else:
            ready.wait(seconds)

    began = time.monotonic()
    client.channel.subscribe(connectivity)
    try:
        for change in follow(start, lost=lost, wait=wait):
            back()
            yield change
    finally:
        client.channel.unsubscribe(connectivity)
        # A thread of gRPC's that has only just begun to look prints a traceback where the channel is closed.
        time.sleep(max(0.0, _SETTLED - (time.monotonic() - began)))


class _Screen(Protocol):
    """Where a watch is shown."""

    def show(self, change: Any) -> None:
        """Show one change."""

    def note(self, text: str) -> None:
        """Say what happens to the watch itself."""


@contextmanager
def _screen(output: Output, watched: Watched) -> Iterator[_Screen]:
    if not output.live:
        yield _Lines(output, watched)
        return
    drawn = _Drawn(output, watched)
    with Live(
        get_renderable=drawn.frame, console=output.console, refresh_per_second=_FRAMES_PER_SECOND
    ) as live:
        drawn.live = live
        yield drawn


class _Lines:
    """One line, or one document, for each change."""

    def __init__(self, output: Output, watched: Watched) -> None:
        self._output = output
        self._watched = watched
        self._widths: list[int] = []

    def show(self, change: Any) -> None:
        if change.change_type == CHANGE_TYPE_SYNCED and not self._output.for_documents:
            return
        self._output.change(change, getattr(change, self._watched.field), lambda: self._lines(change))

    def note(self, text: str) -> None:
        self._output.note(f"watch: {text}")

    def _lines(self, change: Any) -> list[Text]:
        item = getattr(change, self._watched.field)
        columns = self._output.chosen(self._watched.columns(datetime.now(UTC)))
        values = _values(columns, item, change.change_type)
        styles = [column.style(value) for column, value in zip(columns, values, strict=True)]
        titles = [column.title for column in columns]
        if self._watched.has_kinds:
            values = [_CHANGE.value(change.change_type), *values]
            styles, titles = ["", *styles], [_CHANGE.title, *titles]
        head = not self._widths
        # Widths grow with what comes: a watch cannot know its widest line before.
        self._widths = [
            max(width, cell_len(value))
            for width, value in zip(self._widths or map(cell_len, titles), values, strict=True)
        ]
        lines = [aligned(titles, self._widths, ["bold"] * len(titles))] if head else []
        return [*lines, aligned(values, self._widths, styles)]


def _values(columns: Sequence[Column[Any]], item: Any, change_type: int) -> list[str]:
    """Return the values of an item; of a removed one only its name is known, and stands first."""
    values = [clean(column.value(item)) for column in columns]
    return [values[0], *([""] * (len(values) - 1))] if change_type == CHANGE_TYPE_REMOVED else values


class _Drawn:
    """A table that is drawn again and again, by a thread of rich's."""

    def __init__(self, output: Output, watched: Watched) -> None:
        self._output = output
        self._watched = watched
        self._lock = threading.Lock()
        self._known: dict[str, Any] = {}
        self._latest: dict[str, None] = {}
        self._synced = not watched.has_kinds
        self.live: Live | None = None

    def show(self, change: Any) -> None:
        with self._lock:
            if change.change_type == CHANGE_TYPE_SYNCED:
                self._synced = True
                return
            item = getattr(change, self._watched.field)
            self._latest.pop(item.name, None)
            if change.change_type == CHANGE_TYPE_REMOVED:
                self._known.pop(item.name, None)
            else:
                self._known[item.name] = item
                self._latest[item.name] = None

    def note(self, text: str) -> None:
        # Above the table: what goes past rich's console would tear it.
        console = self.live.console if self.live else self._output.errors
        console.print(Text(clean(f"watch: {text}"), "dim"))

    def frame(self) -> Group:
        """Draw what is known: by name where it fits, and what changed last where it does not."""
        room = max(1, self._output.console.height - _AROUND_THE_TABLE)
        with self._lock:
            count = len(self._known)
            names = sorted(self._known) if count <= room else list(reversed(self._latest))[:room]
            items = [self._known[name] for name in names]
            synced = self._synced
        now = datetime.now(UTC)
        foot = (
            f"{count:,} {self._watched.plural}" if synced else f"{count:,} {self._watched.plural}, reading…"
        )
        if count > room:
            foot += f"; the {room:,} that changed last"
        lines = table(self._output.chosen(self._watched.columns(now)), items, room=self._output.console.width)
        for line in lines:
            line.overflow = "ellipsis"
        return Group(*lines, Text(f"{foot}; {now:%H:%M:%SZ}; Ctrl-C ends", "dim"))
