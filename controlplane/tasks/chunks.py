"""Pieces of an attempt's output: what continues it, how much may come, and whether all of it came."""

from __future__ import annotations

from typing import Any

from controlplane.errors import InvalidArgument, ResourceExhausted
from controlplane.tasks import rules
from controlplane.tasks.operations import AppendOutput, Finish
from controlplane.tasks.rules import AttemptState, ChunkPlace
from controlplane.tasks.store.delivery import AttemptWithTask

MAX_OUTPUT_BYTES = 16 << 20
"""Output kept of one attempt, all streams together; the contract's largest ``output_limit``."""

_RECEIVED_COLUMN = {1: "stdout_bytes", 2: "stderr_bytes", 3: "log_bytes"}


def judge_chunk(
    attempt: AttemptWithTask, operation: AppendOutput
) -> ChunkPlace | InvalidArgument | ResourceExhausted:
    """Return where a chunk belongs, or the refusal of one that leaves a gap or is too much."""
    chunk = operation.chunk
    if attempt.attempt_state is AttemptState.FINISHED:
        # Sent again after its result was committed: the agent has not heard of it yet.
        return ChunkPlace.KNOWN
    place = rules.place_chunk(attempt.received[chunk.stream], chunk.offset, len(chunk.data))
    if place is ChunkPlace.GAP:
        return InvalidArgument(
            "PROTOCOL_VIOLATION",
            f"chunk.offset: {chunk.offset} does not continue the {attempt.received[chunk.stream]} bytes "
            "received; send the output of this attempt from the first byte that is missing",
            metadata={"expected_offset": str(attempt.received[chunk.stream])},
        )
    if place is ChunkPlace.NEXT and sum(attempt.received.values()) + len(chunk.data) > MAX_OUTPUT_BYTES:
        return ResourceExhausted(
            "LIMIT_EXCEEDED",
            f"chunk.data: an attempt may have {MAX_OUTPUT_BYTES} bytes of output; discard the rest and "
            "count it in discarded_bytes",
        )
    return place


def judge_lengths(attempt: AttemptWithTask, operation: Finish) -> InvalidArgument | None:
    """Return the refusal of a result whose output has not all come: its end would be lost unseen.

    One that names less than came passes: an agent that lost its journal, or knows nothing of the
    attempt, reports what it has.
    """
    for (stream, column), length in zip(_RECEIVED_COLUMN.items(), operation.lengths, strict=True):
        received = attempt.received[stream]
        if length > received:
            return InvalidArgument(
                "PROTOCOL_VIOLATION",
                f"finished.result.{column}: {length} bytes, but {received} were received; send the output "
                "of this attempt again from the first byte that is missing, then its result",
                metadata={
                    "attempt_id": attempt.attempt_id,
                    "output": column,
                    "expected_offset": str(received),
                },
            )
    return None


def lengths_after(attempt: AttemptWithTask, operation: AppendOutput) -> dict[str, Any]:
    """Return the columns of an attempt after a chunk was appended."""
    lengths = {column: attempt.received[stream] for stream, column in _RECEIVED_COLUMN.items()}
    lengths[_RECEIVED_COLUMN[operation.chunk.stream]] += len(operation.chunk.data)
    return {"attempt_id": attempt.attempt_id, **lengths}
