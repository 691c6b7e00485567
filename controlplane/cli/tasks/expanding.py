"""Following a large batch while the server makes its tasks."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from fleetwright.v1.task_service_pb2 import (
    TASK_BATCH_STATE_EXPANDING,
    GetTaskBatchRequest,
    TaskBatch,
)
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from controlplane.cli.connection import Client
from controlplane.cli.output import Output

LOOK: Final = 0.25
"""Seconds between two looks: a slice of a batch takes some hundredths of one."""


def expanded(
    client: Client, output: Output, batch: TaskBatch, sleep: Callable[[float], None] = time.sleep
) -> TaskBatch:
    """Return a batch once it is not EXPANDING any more; shows a bar on a terminal.

    Raises ``grpc.RpcError``; the server goes on by itself.
    """
    bar = _bar(output)
    with bar if bar is not None else _nothing():
        row = None if bar is None else bar.add_task("making tasks", total=batch.target_count)
        while batch.state == TASK_BATCH_STATE_EXPANDING:
            if bar is not None and row is not None:
                bar.update(row, completed=batch.expanded_count)
            sleep(LOOK)
            batch = client.tasks.GetTaskBatch(GetTaskBatchRequest(name=batch.name)).batch
    return batch


def _nothing() -> AbstractContextManager[Any]:
    return nullcontext()


def _bar(output: Output) -> Progress | None:
    if not output.errors.is_terminal:
        return None
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=output.errors,
        transient=True,
    )
