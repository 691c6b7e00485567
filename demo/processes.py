"""The programs that the demo starts, and their end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil


class DemoFailed(Exception):
    """Something did not happen as it must; the text says what, and where to look."""


@dataclass
class Program:
    """A program that runs, with its output in files of the scratch folder."""

    name: str
    process: subprocess.Popen[bytes]
    stdout: Path
    stderr: Path

    def check(self) -> None:
        """Raise ``DemoFailed`` if it has ended."""
        code = self.process.poll()
        if code is not None:
            raise DemoFailed(f"{self.name} ended with status {code}\n{self.tail()}")

    def tail(self, lines: int = 15) -> str:
        """Return the end of what it said."""
        return "\n".join(self.stderr.read_text(errors="replace").splitlines()[-lines:])

    def rss(self) -> int:
        """Return its resident memory in bytes."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def cpu(self) -> float:
        """Return the CPU seconds that it has used."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def stop(self, within: float = 60) -> int:
        """Ask it to end and return its exit status; one that does not end is killed and named."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise DemoFailed(f"{self.name} did not end within {within:.0f} s of SIGTERM") from None


@dataclass
class Programs:
    """Everything that was started, in order."""

    folder: Path
    running: list[Program] = field(default_factory=list)

    def start(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
    ) -> Program:
        """Start a program."""
        stdout, stderr = self.folder / f"{name}.out", self.folder / f"{name}.log"
        with stdout.open("wb") as out, stderr.open("wb") as errors:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                env={**os.environ, **(environment or {})},
            )
        program = Program(name, process, stdout, stderr)
        self.running.append(program)
        return program

    def run(self, name: str, command: Sequence[str], also: int = 0) -> str:
        """Run a program to its end and return its standard output; ``also`` is a status that is no failure.

        One that says nothing then has failed all the same.
        """
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode and not (done.returncode == also and done.stdout):
            raise DemoFailed(f"{name} ended with status {done.returncode}\n{done.stderr.strip()}")
        return done.stdout.strip()

    def kill_all(self) -> None:
        """End whatever still runs, without manners; for failures and Ctrl-C."""
        for program in reversed(self.running):
            if program.process.poll() is None:
                program.process.kill()
                program.process.wait()


def tool(name: str) -> str:
    """Return the path of one of our commands in this environment."""
    return str(Path(sys.executable).parent / name)


def log_event(program: Program, event: str, within: float = 30) -> dict[str, Any]:
    """Wait until a program has logged ``event`` as JSON and return that line."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        program.check()
        for line in program.stderr.read_text(errors="replace").splitlines():
            if line.startswith("{") and f'"event": "{event}"' in line:
                found: dict[str, Any] = json.loads(line)
                return found
        time.sleep(0.05)
    raise DemoFailed(f"{program.name} did not say {event!r} within {within:.0f} s\n{program.tail()}")


def wait_for_file(path: Path, programs: Sequence[Program], within: float) -> None:
    """Wait until a file exists, while the programs run."""
    deadline = time.monotonic() + within
    while not path.exists():
        for program in programs:
            program.check()
        if time.monotonic() > deadline:
            raise DemoFailed(f"{path.name} did not appear within {within:.0f} s")
        time.sleep(0.1)
