"""Waiting until tasks are final, by watching them: every change arrives, also over a lost connection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from fleetwright.v1 import agent_registry_service_pb2, task_service_pb2
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from controlplane.cli.connection import Client
from controlplane.cli.failures import CommandFailed
from controlplane.cli.output import Output
from controlplane.cli.tasks.views import FINAL, counts_words
from controlplane.cli.watching import following

Counts = dict[int, int]
"""How many tasks are in which state."""


def wait_for(client: Client, output: Output, filter_: str, expected: int) -> Counts:
    """Wait until the ``expected`` tasks that ``filter_`` matches are final, and return their states.

    Shows a bar on a terminal. Raises ``grpc.RpcError``.
    """
    counts: Counts = {}
    with _bar(output, expected) as show:
        for counts in until_final(_changes(client, output, filter_), expected):
            show(counts)
    return counts


def until_final(changes: Iterable[Any], expected: int) -> Iterator[Counts]:
    """Yield the counts by state after each change, the last time when ``expected`` tasks are final.

    A task that is removed meanwhile, by retention, was final and keeps the state that it had; of one that was
    removed before the watch began nothing comes, so that those which it began with are all there are.
    """
    states: dict[str, int] = {}
    for change in changes:
        if change.change_type == agent_registry_service_pb2.CHANGE_TYPE_SYNCED:
            expected = min(expected, len(states))
        elif change.change_type in _WITH_TASK:
            states[change.task.name] = change.task.state
        counts = Counter(states.values())
        yield dict(counts)
        if sum(count for state, count in counts.items() if state in FINAL) >= expected:
            return


_WITH_TASK = {
    agent_registry_service_pb2.CHANGE_TYPE_EXISTING,
    agent_registry_service_pb2.CHANGE_TYPE_CHANGED,
}


def _changes(client: Client, output: Output, filter_: str) -> Iterator[Any]:
    def start(resume_token: str) -> Any:
        request = task_service_pb2.WatchTasksRequest(filter=filter_, resume_token=resume_token)
        return client.tasks.WatchTasks(request)

    return following(client, start, output.note)


def must_have_succeeded(counts: Counts) -> None:
    """Raise ``CommandFailed`` unless every task succeeded."""
    success = task_service_pb2.TASK_STATE_SUCCEEDED
    others = {state: count for state, count in counts.items() if state != success}
    if others:
        raise CommandFailed(f"not all succeeded: {counts_words(others)}")


class _bar:  # noqa: N801 - used like a function
    """A progress bar on a terminal's standard error; nothing elsewhere."""

    def __init__(self, output: Output, expected: int) -> None:
        self._expected = expected
        self._progress = _progress(output.errors) if output.errors.is_terminal else None

    def __enter__(self) -> Callable[[Counts], None]:
        if self._progress is None:
            return lambda counts: None
        bar = self._progress
        bar.start()
        row = bar.add_task("", total=self._expected, states="")

        def show(counts: Counts) -> None:
            done = sum(count for state, count in counts.items() if state in FINAL)
            bar.update(row, completed=done, states=counts_words(counts))

        return show

    def __exit__(self, *_ended: object) -> None:
        if self._progress is not None:
            self._progress.stop()


def _progress(console: Console) -> Progress:
    return Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[states]}"),
        console=console,
        transient=True,
    )
