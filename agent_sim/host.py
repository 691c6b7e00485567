"""The port between the protocol and the machine that it runs on.

The protocol engine knows sessions, journals and streams; a host knows how to do
work and what to measure. The reference agent brings a real host, the simulated
fleet an invented one, and both run the same protocol code.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from fleetwright.v1 import agent_service_pb2, work_pb2


class AttemptReporter(Protocol):
    """What a running attempt may say before it ends."""

    async def output(self, stream: work_pb2.OutputStream.ValueType, data: bytes) -> None:
        """Journal ``data`` (any length; it is cut into chunks) as the next bytes of ``stream``.

        Waits while the journal is behind, which is how output is held back.
        """

    def progress(
        self,
        percent: int,
        message: str,
        status: work_pb2.DeploymentStatus.ValueType = work_pb2.DEPLOYMENT_STATUS_UNSPECIFIED,
    ) -> None:
        """Report how far the attempt is, 0 to 100; the newest report replaces one not sent yet.

        ``status`` is where an installation stands; other kinds of work leave it out.
        """


class FilesError(Exception):
    """A file of the server cannot be had; the text says which one and why."""


class FileUnknownError(FilesError):
    """The server has no such file."""


class FilesRefusedError(FilesError):
    """The server does not give the file to this agent, and asking again will not help."""


class FilesDamagedError(FilesError):
    """The server says of itself that its bytes are not those that it stored."""


class FilesEndlessError(FilesError):
    """The server sends a longer message than any that this agent takes."""


class FilesUnavailableError(FilesError):
    """The file cannot be had now: ask again, after ``retry_after`` where the server said so."""

    def __init__(self, message: str, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of an artefact as the server sent them; nothing of it is trusted."""

    offset: int
    data: bytes
    total_bytes: int


class ServerFiles(Protocol):
    """The files that the server keeps for its agents. It only moves bytes: what they are worth is judged
    elsewhere. Both raise ``FilesError`` and nothing else.
    """

    async def metadata(self, name: str) -> bytes:
        """Return a file of the repository's metadata, by its name in the repository."""

    def artefact(self, sha256: str, offset: int) -> AsyncIterator[Piece]:
        """Give the bytes that have this digest, from ``offset`` on; may raise while it gives."""


class Host(Protocol):
    """A machine, real or simulated."""

    def facts(self) -> work_pb2.HostFacts:
        """Return what identifies the operating system and the machine."""

    def task_kinds(self) -> Sequence[str]:
        """Return the field names of TaskSpec that this host knows and its policy allows."""

    def inventory_digest(self) -> str:
        """Return the digest of the last inventory taken, or "" where none was."""

    async def sample(self) -> Sequence[work_pb2.TelemetryPoint]:
        """Measure once. Must not block the event loop."""

    async def run(
        self, assignment: agent_service_pb2.Assignment, reporter: AttemptReporter
    ) -> work_pb2.AttemptResult:
        """Do the work of one attempt and return how it ended.

        Never raises for what the work does: that is an outcome with a reason.
        A kind that is unknown, or that the host's own policy forbids, is REFUSED
        with nothing done. Cancelling the task that runs this is the request to
        stop: stop the work, clean up, and let ``asyncio.CancelledError`` out;
        the engine reports CANCELLED, or TIMED_OUT where its run limit ended it.
        Work that is past the point where it could be stopped (a package is being
        put in its place) goes on to its end instead, and its result is returned.
        """
