"""Progress of transfers: a bar on a terminal's standard error, and nothing elsewhere."""

from __future__ import annotations

from typing import Self

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from controlplane.cli.output import Output, clean


class TransferBar:
    """How much of something has been transferred, in bytes. Use it as a context manager, from any thread."""

    def __init__(self, output: Output, doing: str, total: int) -> None:
        """Say what is done; ``total`` is 0 where nobody knows it yet."""
        self._progress = _progress(output) if output.errors.is_terminal else None
        self._row: TaskID | None = None
        if self._progress is not None:
            self._row = self._progress.add_task(clean(doing), total=total or None)

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *_ended: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def at(self, position: int, total: int | None = None) -> None:
        """Show how far it is; ``total`` where it is known only now."""
        if self._progress is not None and self._row is not None:
            self._progress.update(self._row, completed=position, total=total)

    def doing(self, text: str, total: int) -> None:
        """Begin to show something else, from 0; ``total`` as above."""
        if self._progress is not None and self._row is not None:
            self._progress.remove_task(self._row)
            self._row = self._progress.add_task(clean(text), total=total or None)


def _progress(output: Output) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=output.errors,
        transient=True,
    )
