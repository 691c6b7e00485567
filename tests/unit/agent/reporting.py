"""A reporter that keeps what it is told, for tests of what runs."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from fleetwright.v1 import work_pb2


class Recorder:
    """Implements AttemptReporter; ``wrote`` is set with the first output."""

    def __init__(self) -> None:
        self.outputs: dict[int, bytes] = defaultdict(bytes)
        self.wrote = asyncio.Event()
        self.said: list[tuple[int, str]] = []
        self.statuses: list[int] = []
        self.told = asyncio.Event()

    async def output(self, stream: work_pb2.OutputStream.ValueType, data: bytes) -> None:
        self.outputs[stream] += data
        self.wrote.set()

    def progress(
        self,
        percent: int,
        message: str,
        status: work_pb2.DeploymentStatus.ValueType = work_pb2.DEPLOYMENT_STATUS_UNSPECIFIED,
    ) -> None:
        self.said.append((percent, message))
        if status and self.statuses[-1:] != [status]:
            self.statuses.append(status)
            self.told.set()

    @property
    def stdout(self) -> bytes:
        return self.outputs[work_pb2.OUTPUT_STREAM_STDOUT]

    @property
    def stderr(self) -> bytes:
        return self.outputs[work_pb2.OUTPUT_STREAM_STDERR]

    @property
    def log(self) -> bytes:
        return self.outputs[work_pb2.OUTPUT_STREAM_LOG]
