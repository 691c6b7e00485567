"""What tasks said: the output of scripts and logs."""

from __future__ import annotations

import sys

import typer
from fleetwright.v1 import work_pb2
from fleetwright.v1.task_service_pb2 import ReadTaskOutputRequest

from controlplane.cli.connection import Client


def stream_named(name: str | None) -> work_pb2.OutputStream.ValueType:
    """Return the stream of this name, or the value for all of them; raises ``typer.BadParameter``."""
    if name is None:
        return work_pb2.OUTPUT_STREAM_UNSPECIFIED
    try:
        return work_pb2.OutputStream.Value(f"OUTPUT_STREAM_{name.upper()}")
    except ValueError:
        raise typer.BadParameter(f"--stream {name!r}: choose stdout, stderr or log") from None


def print_output(client: Client, name: str, stream: work_pb2.OutputStream.ValueType) -> None:
    """Print a task's output, each stream where it belongs. Raises ``grpc.RpcError``."""
    for part in client.tasks.ReadTaskOutput(ReadTaskOutputRequest(name=name, stream=stream)):
        target = sys.stderr if part.stream == work_pb2.OUTPUT_STREAM_STDERR else sys.stdout
        target.buffer.write(_harmless(part.data) if target.isatty() else part.data)
        target.buffer.flush()


def _harmless(data: bytes) -> bytes:
    """Return output without what acts on a terminal but line ends and tabs: agents choose what they write."""
    text = data.decode("utf-8", "replace")
    return "".join(
        char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text
    ).encode()
