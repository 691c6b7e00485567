"""The real ``fleetwright`` command, as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controlplane.trust.layout import Layout
from tests.support.process import environment
from tests.support.site import HOST, Site
from tests.support.streams import PATIENCE

PROGRAM = str(Path(sys.executable).with_name("fleetwright"))


@dataclass(frozen=True)
class Ended:
    """What a command left behind."""

    status: int
    out: str
    errors: str

    @property
    def lines(self) -> list[str]:
        """What it printed."""
        return self.out.splitlines()

    @property
    def document(self) -> Any:
        """What it printed, from JSON."""
        return json.loads(self.out)


@dataclass
class Running:
    """A command that goes on until it is stopped."""

    process: asyncio.subprocess.Process

    async def line(self) -> str:
        """Return the next line of what it prints; fails where it ends instead."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            line = await self.process.stdout.readline()
        assert line, f"it ended: {(await self.ended()).errors}"
        return line.decode().rstrip("\n")

    async def note(self) -> str:
        """Return the next line that it says on standard error."""
        assert self.process.stderr is not None
        async with asyncio.timeout(PATIENCE):
            return (await self.process.stderr.readline()).decode().rstrip("\n")

    async def change(self) -> Any:
        """Return the next line from JSON."""
        return json.loads(await self.line())

    async def interrupt(self) -> Ended:
        """Press Ctrl-C; return how it ends."""
        self.process.send_signal(signal.SIGINT)
        return await self.ended()

    async def ended(self) -> Ended:
        """Wait for the end."""
        async with asyncio.timeout(PATIENCE):
            out, errors = await self.process.communicate()
        return checked(self.process.returncode, out, errors)


@dataclass(frozen=True)
class Command:
    """The command as one person types it, in one folder, with one environment."""

    home: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    def calling(self, site: Site, identity: Path | None = None) -> Command:
        """Return the command of who has ``identity``, by default of the first operator."""
        folder = identity or Layout(site.folder).identity("operator", "admin")
        return self.having(FLEETWRIGHT_SERVER=f"{HOST}:{site.ports.admin}", FLEETWRIGHT_IDENTITY=str(folder))

    def having(self, **variables: str) -> Command:
        """Return the command with more variables in its environment."""
        return Command(self.home, {**self.variables, **variables})

    async def __call__(self, *words: str) -> Ended:
        """Type a command and wait for its end."""
        return await (await self.start(*words)).ended()

    async def start(
        self, *words: str, stdout: int = asyncio.subprocess.PIPE, stderr: int = asyncio.subprocess.PIPE
    ) -> Running:
        """Type a command."""
        return Running(
            await asyncio.create_subprocess_exec(
                PROGRAM,
                *words,
                cwd=self.home,
                env=self._environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )
        )

    async def without_output(self, *words: str) -> Ended:
        """Type a command with standard output closed, and wait for its end."""
        command = ("sh", "-c", 'exec "$0" "$@" >&-', PROGRAM, *words)
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=self.home,
            env=self._environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(PATIENCE):
            _, errors = await process.communicate()
        return checked(process.returncode, b"", errors)

    async def on_a_terminal(self, *words: str, typing: str = "", after: str = "") -> tuple[int, str]:
        """Type a command on a terminal, and ``typing`` once it shows ``after``; return status and screen."""
        master, slave = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            PROGRAM,
            *words,
            cwd=self.home,
            env={**self._environment(), "TERM": "xterm-256color", "COLUMNS": "200", "LINES": "40"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(slave)
        async with asyncio.timeout(PATIENCE):
            screen = await asyncio.to_thread(_follow, master, typing.encode(), after.encode())
            status = await process.wait()
        os.close(master)
        assert "Traceback" not in screen, screen
        return status, screen

    def _environment(self) -> dict[str, str]:
        clean = environment(self.variables)
        for name in ("XDG_CONFIG_HOME", "NO_COLOR", "FORCE_COLOR", "GRPC_VERBOSITY"):
            if name not in self.variables:
                clean.pop(name, None)
        return {**clean, "HOME": str(self.home)}


def checked(status: int | None, out: bytes | None, errors: bytes | None) -> Ended:
    """Return how a command ended, which is never with a traceback."""
    ended = Ended(status or 0, (out or b"").decode(errors="surrogateescape"), (errors or b"").decode())
    assert "Traceback" not in ended.errors, ended.errors
    return ended


def _take_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _follow(master: int, typing: bytes, after: bytes) -> str:
    """Read a screen to its end, and type once ``after`` is on it."""
    screen, typed = b"", not typing
    while True:
        try:
            piece = os.read(master, 65536)
        except OSError:  # what Linux says once the other side is closed
            return screen.decode()
        if not piece:
            return screen.decode()
        screen += piece
        if not typed and after in screen:
            os.write(master, typing)
            typed = True
