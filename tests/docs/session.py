"""One document, run as one reader would: block after block, in terminals that stay open."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.docs.blocks import ROOT, Block, Document, load
from tests.docs.clone import missing
from tests.docs.terminal import Said, Terminal, TerminalError

MAIN: Final = "main"
TRACEBACK: Final = "Traceback (most recent call last)"
UNTIL_INTERRUPTED: Final = "# until Ctrl-C"
_INTERRUPTED: Final = (0, 130)
_TOLD: Final = 8_000
_VARIES = re.compile(
    r"[0-9a-f]{8}-[0-9a-f-]{27}|\b(?=[0-9a-f]*[0-9])[0-9a-f]{8,}\b|\d[\d,.:]*(?:[TZ]\d*[\d:.]*Z?)?"
)


class DocumentError(Exception):
    """A document does not do what it says; the message names the place and what happened."""


@dataclass
class Session:
    """The terminals of one document, and what the last block said."""

    folder: Path
    environment: Mapping[str, str]
    tell: Callable[[str], None] = field(default=lambda line: print(line, flush=True))
    terminals: dict[str, Terminal] = field(default_factory=dict)
    said: str | None = None
    left_out: list[str] = field(default_factory=list)

    def run(self, blocks: Iterable[Block]) -> None:
        """Run blocks in order."""
        for block in blocks:
            if block.shows and self.said is not None:
                require_shape(block, self.said)
            elif block.is_command:
                self._run(block)

    def end(self) -> None:
        """Press Ctrl-C in what still runs, the last one first: all must end in good order."""
        for name in [name for name in reversed(self.terminals) if name != MAIN]:
            self._stop(name, "the end of the document")

    def close(self) -> None:
        """Close every terminal, whatever runs in it."""
        for terminal in self.terminals.values():
            terminal.close()

    def _run(self, block: Block) -> None:
        marks = block.marks
        self.said = None
        if not marks.is_run:
            self.tell(f"--- {block.place}: left out: {marks.reason}")
            return
        if lacking := missing(marks.needs, self.folder):
            self.tell(f"--- {block.place}: left out: there is no {', '.join(lacking)}")
            self.left_out += lacking
            return
        self.tell(f"--- {block.place}")
        for name in marks.stops:
            self._stop(name, block.place)
        try:
            self._type(block, self._terminal(marks.background or MAIN))
        except TerminalError as error:
            raise DocumentError(f"{block.place}: {error}") from error

    def _terminal(self, name: str) -> Terminal:
        if name not in self.terminals:
            self.terminals[name] = Terminal(self.folder, self.environment)
        return self.terminals[name]

    def _type(self, block: Block, terminal: Terminal) -> None:
        self.said = ""
        commands = [command for command in _commands(block) if command.strip()]
        if not commands:
            raise DocumentError(f"{block.place}: the block has no command")
        command: list[str] = []
        for number, line in enumerate(commands, start=1):
            self.tell(f"$ {line}" if not command else f"> {line}")
            command.append(line)
            terminal.type(line)
            said = self._after(block, line, terminal, is_last=number == len(commands))
            if said.wants_more:
                continue
            self._judge(block, "\n".join(command), said, is_last=number == len(commands))
            command = []
        if command:
            raise DocumentError(f"{block.place}: the last command is not whole:\n{command}")

    def _after(self, block: Block, line: str, terminal: Terminal, *, is_last: bool) -> Said:
        """Wait for what a typed line leads to: its end, the text of a mark, or the wish for more lines."""
        marks = block.marks
        text = marks.until or marks.interrupted_after if is_last else ""
        if line.rstrip().endswith(UNTIL_INTERRUPTED):
            said = terminal.wait(lambda said: bool(said.text.strip()) or said.status is not None, "output")
        elif text:
            said = terminal.wait(lambda said: text in said.text or said.status is not None, f"{text!r}")
        else:
            return terminal.ended()
        if said.status is not None:
            raise DocumentError(
                f"{block.place}: {line}\nwas to run on, and ended with {said.status}:\n{said.text}"
            )
        if is_last and marks.background:
            return said
        terminal.interrupt()
        return terminal.ended()

    def _judge(self, block: Block, command: str, said: Said, *, is_last: bool) -> None:
        if TRACEBACK in said.text:
            raise DocumentError(f"{block.place}: {command}\nended with a traceback:\n{said.text}")
        self.said = (self.said or "") + said.text
        self.tell(said.text.rstrip("\n")[-_TOLD:])
        expected: tuple[int, ...] = (block.marks.exit_status if is_last else 0,)
        if is_last and block.marks.background:
            return
        if command.rstrip().endswith(UNTIL_INTERRUPTED) or (is_last and block.marks.interrupted_after):
            expected = (block.marks.exit_status,) if is_last and block.marks.exit_status else _INTERRUPTED
        if said.status not in expected:
            raise DocumentError(
                f"{block.place}: {command}\nended with {said.status}, not {expected[0]}:\n{said.text}"
            )
        if block.language == "console":
            _require_lines(block, _shown_after(block, command), said.text)

    def _stop(self, name: str, place: str) -> None:
        if name not in self.terminals:
            raise DocumentError(f"{place}: stops {name!r}, and no block before it runs in that terminal")
        terminal = self.terminals.pop(name)
        self.tell(f"--- Ctrl-C in {name}")
        try:
            terminal.interrupt()
            said = terminal.ended()
        except TerminalError as error:
            raise DocumentError(f"{place}: {name} did not end after Ctrl-C: {error}") from error
        finally:
            terminal.close()
        if said.status not in _INTERRUPTED or TRACEBACK in said.text:
            raise DocumentError(f"{place}: {name} ended with {said.status} after Ctrl-C:\n{said.text}")


def blocks_of(document: Document) -> list[Block]:
    """Return what runs for a document: its blocks, after those of the section that it begins with."""
    first: list[Block] = []
    if document.begins_with:
        name, _, anchor = document.begins_with.partition("#")
        first = load(ROOT / name).section(anchor)
    return [*first, *document.blocks]


def run_document(document: Document, folder: Path, environment: Mapping[str, str]) -> list[str]:
    """Run a document in a work tree; return what was missing, so that blocks were left out."""
    session = Session(folder, environment)
    try:
        session.run(blocks_of(document))
        session.end()
    except DocumentError:
        for name, terminal in session.terminals.items():
            print(f"--- {name} said, at the end:\n{terminal.said().text[-4000:]}", file=sys.stderr)
        raise
    finally:
        session.close()
    return session.left_out


def _commands(block: Block) -> list[str]:
    if block.language != "console":
        return list(block.lines)
    return [line[2:] for line in block.lines if line.startswith(("$ ", "> "))]


def _shown_after(block: Block, command: str) -> list[str]:
    """Return the lines that a console block shows below a command."""
    last = command.splitlines()[-1]
    start = next(i for i, line in enumerate(block.lines) if line[2:] == last)
    shown = []
    for line in block.lines[start + 1 :]:
        if line.startswith("$ "):
            break
        shown.append(line)
    return shown


def require_shape(block: Block, said: str) -> None:
    """Require the lines of a block in what was said: in order, numbers and identifiers apart."""
    _require_lines(block, list(block.lines), said)


def shape(line: str) -> re.Pattern[str]:
    """Return what a shown line stands for: ``…`` is any text, a number any number, blanks any blanks."""
    words = []
    for word in line.split():
        parts = [
            r"[0-9a-fA-F][\w,.:-]*".join(map(re.escape, _VARIES.split(piece))) for piece in word.split("…")
        ]
        words.append(".*".join(parts))
    return re.compile(r"\s*" + r"\s+".join(words) + r"\s*")


def _require_lines(block: Block, shown: list[str], said: str) -> None:
    rest = iter(said.splitlines())
    for line in shown:
        if line.strip() and not any(shape(line).fullmatch(other) for other in rest):
            raise DocumentError(
                f"{block.place}: shows, and was not said in this order:\n{line}\nit said:\n{said}"
            )
