"""The processes that a run starts: each answers in JSON lines, and none outlives the run.

Every child reads its standard input and ends where that ends, so that even a killed run leaves
nothing behind.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench import machine
from demo.processes import Program, Programs

REPOSITORY = Path(__file__).parents[1]
PATIENCE = 180.0


class BenchFailed(Exception):
    """A run cannot go on; the text says what happened, with the end of the log that tells more."""


@dataclass
class Child(Program):
    """A program of the bench; what it says to people is in ``stderr``."""

    beside: int | None = None
    """The process of a database that works for it."""
    _used: float = field(default=0.0, init=False)
    _unread: bytes = field(default=b"", init=False)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def cpu(self) -> float:
        """Return the CPU seconds that it has used, with all that it has started and its database.

        Where it has ended, what it had used when this was last asked.
        """
        beside = machine.cpu_of_family(self.beside) if self.beside else 0.0
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            self._used = machine.cpu_of_family(self.pid)
        return self._used + beside

    def rss(self) -> int:
        """Return its resident memory in bytes, with that of all that it has started."""
        return sum(machine.rss_bytes(pid) for pid in machine.family(self.pid))

    def tell(self, **what: Any) -> None:
        """Send one command. Raises ``BenchFailed`` where it has ended."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(what).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self.failed(f"ended before {what.get('do', 'it was told')}") from None

    def hear(self, within: float = PATIENCE) -> dict[str, Any]:
        """Wait for its next answer. Raises ``BenchFailed`` for an end, an error or silence."""
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not selector.select(within):
                    raise self.failed(f"said nothing for {within:.0f} s")
                piece = os.read(self.process.stdout.fileno(), 65536)
                if not piece:
                    raise self.failed("ended")
                self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise self.failed(answer["error"])
        return answer

    def ask(self, **what: Any) -> dict[str, Any]:
        """Send one command and wait for its answer."""
        self.tell(**what)
        return self.hear()

    def failed(self, what: str) -> BenchFailed:
        """Return the error that says what became of it."""
        return BenchFailed(f"{self.name}: {what}\n{self.tail()}")


class Children(Programs):
    """Everything that a run has started."""

    def launch(
        self, name: str, module: str, arguments: Sequence[str], variables: Mapping[str, str] | None = None
    ) -> Child:
        """Start ``python -m module`` without the caller's settings of Fleetwright."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith("FLEETWRIGHT_")}
        path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "proto/python")])
        log = self.folder / f"{name}-{len(self.running)}.log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**clean, "PYTHONPATH": path, **(variables or {})},
                # Ctrl-C is for the run alone, which ends its children in order.
                start_new_session=True,
            )
        child = Child(name, process, log, log)
        self.running.append(child)
        return child
