"""Lines that a job wrote, on their way into our log: short, few, and with nothing that a terminal obeys."""

from __future__ import annotations

from controlplane.packaging.isolation.records import IsolationLimits, Log

_REPLACED = "\N{REPLACEMENT CHARACTER}"


def printable(text: str) -> str:
    """Return a text in which what is no visible character is replaced, tabs aside."""
    return "".join(char if char.isprintable() or char == "\t" else _REPLACED for char in text)


class LogLines:
    """Cuts bytes into lines and passes them on as they come."""

    def __init__(self, limits: IsolationLimits, log: Log | None) -> None:
        self._most = limits.log_lines
        self._width = limits.log_line_chars
        self._log = log
        self._begun = bytearray()
        self._dropped = 0
        self.lines: list[str] = []
        """What was passed on."""

    def feed(self, part: bytes) -> None:
        """Take what was written next."""
        *whole, rest = part.split(b"\n")
        for line in whole:
            self._begin(line)
            self._end()
        self._begin(rest)

    def _begin(self, line: bytes) -> None:
        # Four bytes make a character at most; what is behind the width is dropped as it comes.
        room = 4 * self._width + 1 - len(self._begun)
        self._begun += line[: max(room, 0)]

    def _end(self) -> None:
        line, self._begun = bytes(self._begun), bytearray()
        if len(self.lines) >= self._most:
            self._dropped += 1
            return
        self._pass_on(self._plain(line))

    def _plain(self, line: bytes) -> str:
        text = line.decode("utf-8", "replace").rstrip("\r")
        cut = text if len(text) <= self._width else text[: self._width - 1] + "…"
        return printable(cut)

    def _pass_on(self, line: str) -> None:
        self.lines.append(line)
        if self._log is not None:
            self._log(line)

    def close(self) -> None:
        """Pass on what has no end of line, and say how many lines were dropped."""
        if self._begun:
            self._end()
        if self._dropped:
            self._pass_on(f"({self._dropped} lines more were dropped)")
