"""A terminal with an interactive bash in it, as a reader of the documents has one."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROWS, COLUMNS = 50, 160
_PROMPT = re.compile(r"\x1e(\d+)\x1e")
_MORE = "\x1d"
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07|\x1b[@-_]")
_BASH = ("bash", "--noprofile", "--norc", "--noediting", "-i")
_SETTINGS = {
    # Not to be seen by readers: the shell tells by them that a command ended, or wants more lines.
    "PROMPT_COMMAND": r'printf "\036%d\036" "$?"',
    "PS1": "",
    "PS2": _MORE,
    "HISTFILE": "/dev/null",
    "TERM": "xterm",
    "PAGER": "cat",
    "GIT_PAGER": "cat",
}


class TerminalError(Exception):
    """A terminal did not do what was waited for; the message has what it said."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a terminal said since the last command: cleaned, and whether a prompt follows."""

    text: str
    status: int | None
    wants_more: bool


def cleaned(raw: str) -> str:
    """Return text without escapes and carriage returns; of a line written over, what was left of it."""
    lines = _ESCAPES.sub("", raw).replace("\r\n", "\n").split("\n")
    return "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in lines)


class Terminal:
    """Types into one shell and waits for what it says; nothing is decided by time but giving up."""

    def __init__(self, folder: Path, environment: Mapping[str, str], patience: float = 300) -> None:
        self._patience = patience
        self._changed = threading.Condition()
        self._said = ""
        self._closed = False
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        modes = termios.tcgetattr(slave)
        modes[3] &= ~termios.ECHO
        termios.tcsetattr(slave, termios.TCSANOW, modes)
        self._shell = subprocess.Popen(
            _BASH,
            cwd=folder,
            env={**environment, **_SETTINGS},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.ended()

    def type(self, line: str) -> None:
        """Type one line, and forget what was said before it."""
        with self._changed:
            self._said = _PROMPT.sub("", self._said) if self._wants_more() else ""
            self._said = self._said.replace(_MORE, "")
        os.write(self._master, line.encode() + b"\n")

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        os.write(self._master, b"\x03")

    def said(self) -> Said:
        """Return what was said since the last command was typed."""
        with self._changed:
            return self._state()

    def ended(self) -> Said:
        """Wait until a command ended, or wants more lines."""
        return self.wait(lambda said: said.status is not None or said.wants_more, "the end of a command")

    def wait(self, until: Callable[[Said], bool], what: str) -> Said:
        """Wait until what was said satisfies ``until``; the shell's end or no patience left is an error."""
        with self._changed:
            done = self._changed.wait_for(lambda: self._closed or until(self._state()), self._patience)
            state = self._state()
        if not done or not until(state):
            why = f"no {what} in {self._patience:.0f} s" if not done else f"the shell ended before {what}"
            raise TerminalError(f"{why}; it said:\n{state.text}")
        return state

    def close(self) -> None:
        """Hang up; what still runs in it is killed."""
        # The processes of a session keep its number, whichever group they are in.
        with suppress(ProcessLookupError):
            os.killpg(self._shell.pid, signal.SIGHUP)
        try:
            self._shell.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._shell.kill()
            self._shell.wait()
        os.close(self._master)
        self._reader.join(timeout=5)

    def _wants_more(self) -> bool:
        return self._said.endswith(_MORE)

    def _state(self) -> Said:
        prompt = _PROMPT.search(self._said)
        text = self._said[: prompt.start()] if prompt else self._said
        status = int(prompt[1]) if prompt else None
        return Said(cleaned(text.replace(_MORE, "")), status, self._wants_more())

    def _read(self) -> None:
        pending = b""
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:  # the last process of the terminal is gone
                data = b""
            pending += data
            text, pending = _decoded(pending)
            with self._changed:
                self._said += text
                self._closed = not data
                self._changed.notify_all()
            if not data:
                return


def _decoded(data: bytes) -> tuple[str, bytes]:
    """Return the text of whole characters, and the bytes of one that is cut off."""
    for cut in range(min(4, len(data) + 1)):
        with suppress(UnicodeDecodeError):
            return data[: len(data) - cut].decode(), data[len(data) - cut :]
    return data.decode(errors="replace"), b""


def _take_terminal() -> None:
    # Whoever started the tests may have done so with Ctrl-C ignored.
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
