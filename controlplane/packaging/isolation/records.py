"""Shapes of isolation: what is to be done, within which limits, what came of it, and which limits held."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from pathlib import Path

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]
"""What crosses the border of a process."""

Log = Callable[[str], None]
"""Is told each line that a job wrote, while it runs: shortened, without control characters."""

MEBIBYTE = 1 << 20
NOBODY = 65534


class FactName(Enum):
    """What can be denied to a job; ``Fact`` says whether it was."""

    UID = "uid"
    """It runs as another user than the server, and in no other group."""
    NETWORK = "network"
    """No address can be reached, not even one of this machine."""
    MEMORY = "memory"
    """Address space of each of its processes."""
    CPU = "cpu"
    """Processor time of each of its processes."""
    FILES = "files"
    """Size of a file, open files, no core dumps."""
    PROCESSES = "processes"
    """How many processes and threads it may start."""
    NO_NEW_PRIVS = "no_new_privs"
    """No program that it starts can gain rights, set-user-id or not."""
    ENVIRONMENT = "environment"
    """It has no variable of the server's environment."""
    CAPABILITIES = "capabilities"
    """It has no capability of Linux."""
    DESCRIPTORS = "descriptors"
    """It inherited no open file of the server."""
    FILESYSTEM = "filesystem"
    """It sees the interpreter and its scratch folder, and can write the latter alone."""
    DESCENDANTS = "descendants"
    """What it starts ends with it, however it tries to live on, and it sees no other process."""
    SYSTEM_CALLS = "system_calls"
    """Calls that make sockets of a network, look into other processes or load code into the kernel fail."""


class FailureKind(Enum):
    """Why a job has no outcome."""

    TIMEOUT = "timeout"
    MEMORY = "memory"
    CPU = "cpu"
    KILLED = "killed"
    """It ended by a signal, or without an answer."""
    TOO_MUCH_OUTPUT = "too_much_output"
    """Its result, a file of it, or its scratch folder grew over a limit."""
    BAD_RESULT = "bad_result"
    """What it answered is no JSON, or what it left behind cannot be taken over."""
    NOT_ALLOWED = "not_allowed"
    """The function stands in no table, or the program is not the one that was pinned."""
    NOT_ISOLATED = "not_isolated"
    """A fact that the settings require does not hold here: the job was not begun."""
    NOT_STARTED = "not_started"
    """The process or its scratch folder could not be made."""


@dataclass(frozen=True, slots=True)
class Fact:
    """Whether one thing was denied to the job, as observed inside its process."""

    name: FactName
    held: bool
    detail: str
    """What was observed, or why it does not hold; one line, for people and evidence."""


class IsolationFailed(Exception):
    """A job that came to no outcome; the message says what happened and what to do."""

    def __init__(self, kind: FailureKind, message: str, facts: Sequence[Fact] = ()) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.facts = tuple(facts)


@dataclass(frozen=True, slots=True)
class IsolationLimits:
    """What a job may use. Sizes in bytes. Raises ``ValueError`` where one is not above zero."""

    wall: timedelta = timedelta(minutes=2)
    cpu: timedelta = timedelta(minutes=1)
    """Of each process; whole seconds, rounded up."""
    memory_bytes: int = 1024 * MEBIBYTE
    """Address space of each process. Programs in Go reserve far more than they use: give them 8 GiB."""
    file_bytes: int = 1024 * MEBIBYTE
    """Size of one file that it writes."""
    scratch_bytes: int = 4096 * MEBIBYTE
    """Of all that stands in its scratch folder, inputs too; looked at about each second and at the end."""
    scratch_files: int = 200_000
    open_files: int = 128
    processes: int = 16
    """Processes and threads, beyond those that its user has already."""
    result_bytes: int = 16 * MEBIBYTE
    """Length of the answer as JSON, or of a program's standard output."""
    log_lines: int = 2_000
    """Lines that are passed on; more are dropped, and that is said."""
    log_line_chars: int = 2_000

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if (value.total_seconds() if isinstance(value, timedelta) else value) <= 0:
                raise ValueError(f"limits.{name}: must be above zero; it is {value}")


@dataclass(frozen=True, slots=True)
class IsolationSettings:
    """How this machine isolates. Raises ``ValueError`` for a user that is root."""

    scratch_root: Path
    """Folder of the scratch folders; made where missing. Others need not be able to read it, but where no
    mounts can be made, the jobs' user has to be able to go through the folders above it."""
    uid: int = NOBODY
    """User that jobs run as; only where the server is root, which a server should not be."""
    gid: int = NOBODY
    uids: int = 1
    """How many users, from ``uid`` on, jobs are spread over by chance. The kernel counts processes by user:
    jobs that run at the same time as one user share what that user may start, and could run out of it."""
    require: frozenset[FactName] = frozenset()
    """Where one of these does not hold, no job runs."""
    interpreter: Path | None = None
    """Interpreter of the jobs; that of this process where None."""

    def __post_init__(self) -> None:
        if min(self.uid, self.gid, self.uids) <= 0:
            raise ValueError(
                f"uid, gid and uids must be above zero; they are {self.uid}, {self.gid} and {self.uids}"
            )


@dataclass(frozen=True, slots=True)
class Job:
    """A call of a function of the table, with what it may read.

    The function is called with ``arguments`` by keyword, in a folder where ``in/`` holds the inputs by name,
    ``out/`` is empty and to be filled, and ``tmp/`` is for what nobody needs later: paths in arguments and
    results are relative to it.
    """

    function: str
    arguments: Mapping[str, JsonValue] = field(default_factory=dict)
    inputs: Mapping[str, Path] = field(default_factory=dict)
    """Name within ``in/`` to a file or folder of the server, which the job can read and not change."""
    outputs: Path | None = None
    """Folder that what stands in ``out/`` becomes after success; must not exist. None: it is thrown away."""


@dataclass(frozen=True, slots=True)
class Program:
    """A foreign program, pinned to its bytes."""

    path: Path
    """Absolute; no PATH is searched. An ELF executable, no script."""
    sha256: str
    """Of the executable, lower-case hexadecimal; another one is not started."""
    arguments: Sequence[str] = ()
    inputs: Mapping[str, Path] = field(default_factory=dict)
    outputs: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    """Beyond HOME and TMPDIR, which are the scratch folder's, and LC_ALL."""


@dataclass(frozen=True, slots=True)
class JobError:
    """An error that the job itself found: about its input, and for whoever gave that."""

    code: str
    """Of the job's own error; "UNEXPECTED" where it failed in a way that it does not know."""
    member: str
    """Which member or field; empty where it is about the whole."""
    message: str


@dataclass(frozen=True, slots=True)
class Usage:
    """What a job used."""

    wall: timedelta
    cpu: timedelta
    memory_bytes: int
    """Most resident memory of one of its processes."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a function answered: ``value``, unless ``error`` is set. Both come from a process that read
    untrusted bytes: check the shape of the value before it is used."""

    value: JsonValue
    error: JobError | None
    facts: tuple[Fact, ...]
    usage: Usage


@dataclass(frozen=True, slots=True)
class ProgramOutcome:
    """How a program ended."""

    status: int
    """Exit status; what it means is the program's."""
    stdout: bytes
    stderr: str
    """The lines that were passed on to the log."""
    facts: tuple[Fact, ...]
    usage: Usage


def unheld(facts: Sequence[Fact]) -> tuple[Fact, ...]:
    """Return the facts that did not hold, for evidence."""
    return tuple(fact for fact in facts if not fact.held)
