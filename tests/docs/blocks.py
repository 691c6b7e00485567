"""What a document asks to be run: its fenced command blocks, in order, with their marks.

Blocks of ``sh`` and ``bash`` are typed as they stand; of ``console`` the lines after ``$ ``, and what
stands between them must come back. A comment right before a block says what differs from "typed line by
line, each command ending with 0". Clauses are joined by ``;``::

    <!-- runs: background NAME until "TEXT" -->    in a terminal of its own, where the last command stays
    <!-- runs: stops NAME -->                      Ctrl-C in that terminal first; also ``stops A, B``
    <!-- runs: until interrupted after "TEXT" -->  Ctrl-C once the last command has said TEXT
    <!-- runs: exit 2 -->                          the last command ends with 2
    <!-- runs: where PROGRAM, PATH -->             left out, and a test skipped, where one of them is missing
    <!-- runs: elsewhere in tests/x.py, because ... -->
    <!-- runs: never, because ... -->
    <!-- shows -->                                 before a block that is no command: what the last one said

A command line that ends with ``# until Ctrl-C`` is interrupted after its first output, and may end with 0
or 130; programs of others that end otherwise stand last in a block marked with ``exit``. A document that
needs what another one sets up says so once: ``<!-- begins with: README.md#heading -->``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHELLS = frozenset({"sh", "bash", "shell", "console"})

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,}|~{3,})(?P<language>[\w-]*)[^`]*$")
_HEADING = re.compile(r"^(#+) (.+)$")
_COMMENT = re.compile(r"^ *<!-- *(runs|shows|begins with)\b:? *(.*?) *-->$")
_LOOKS_LIKE_COMMANDS = re.compile(
    r"^(\$ |(sudo |\S*/)?(fleetwright(-agent|-sim|-certs)?|make|buf|grpcurl|curl|docker|git|systemctl|pip"
    r"|python3?|npm|npx|go|openssl|apt-get|scripts/[\w-]+) [\w.\"'/-])"
)


class MarkError(ValueError):
    """A mark that the harness cannot read; the message names document, line and remedy."""


@dataclass(frozen=True, slots=True)
class Marks:
    """How a block is run."""

    background: str = ""
    until: str = ""
    stops: tuple[str, ...] = ()
    interrupted_after: str = ""
    exit_status: int = 0
    needs: tuple[str, ...] = ()
    elsewhere: str = ""
    reason: str = ""
    never: bool = False

    @property
    def is_run(self) -> bool:
        """Whether the harness types it."""
        return not (self.never or self.elsewhere)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: what stands in it, and where."""

    document: str
    line: int
    language: str
    lines: tuple[str, ...]
    marks: Marks = Marks()
    shows: bool = False

    @property
    def place(self) -> str:
        """Document and line, as editors take them."""
        return f"{self.document}:{self.line}"

    @property
    def is_command(self) -> bool:
        """Whether its language is that of a shell."""
        return self.language in SHELLS

    def looks_like_commands(self) -> bool:
        """Tell whether a reader would take a block without a language for commands."""
        return not self.shows and not self.language and any(map(_LOOKS_LIKE_COMMANDS.match, self.lines))


@dataclass(frozen=True, slots=True)
class Document:
    """A document's blocks in order, and the headings under which they stand."""

    name: str
    blocks: tuple[Block, ...]
    headings: tuple[tuple[int, int, str], ...]
    begins_with: str = ""

    def commands(self) -> list[Block]:
        """Return the blocks of shells."""
        return [block for block in self.blocks if block.is_command]

    def section(self, anchor: str) -> list[Block]:
        """Return the blocks below a heading, up to the next one of its level or above."""
        for index, (line, level, name) in enumerate(self.headings):
            if name == anchor:
                ends = [after for after, other, _ in self.headings[index + 1 :] if other <= level]
                end = ends[0] if ends else None
                return [b for b in self.blocks if b.line > line and (end is None or b.line < end)]
        raise MarkError(f"{self.name} has no heading #{anchor}")


@dataclass
class _Reader:
    """One pass over the lines of a document."""

    name: str
    blocks: list[Block] = field(default_factory=list)
    headings: list[tuple[int, int, str]] = field(default_factory=list)
    begins_with: str = ""
    marks: Marks = field(default_factory=Marks)
    shows: bool = False
    pending: str = ""

    def read(self, lines: Iterator[tuple[int, str]]) -> Document:
        for number, line in lines:
            if fence := _FENCE.match(line):
                self._fence(number, fence, lines)
            elif comment := _COMMENT.match(line):
                self._comment(number, comment[1], comment[2])
            elif line.strip():
                self._text(number, line)
        self._nothing_pending()
        return Document(self.name, tuple(self.blocks), tuple(self.headings), self.begins_with)

    def _fence(self, number: int, fence: re.Match[str], lines: Iterator[tuple[int, str]]) -> None:
        body = []
        indent, ticks = fence["indent"], fence["ticks"]
        for _, line in lines:
            if line.strip() == ticks:
                break
            body.append(line.removeprefix(indent))
        else:
            raise MarkError(f"{self.name}:{number}: the block is never closed")
        self.blocks.append(Block(self.name, number, fence["language"], tuple(body), self.marks, self.shows))
        self.marks, self.shows, self.pending = Marks(), False, ""

    def _comment(self, number: int, kind: str, text: str) -> None:
        if kind == "begins with":
            self.begins_with = text
            return
        self._nothing_pending()
        self.pending = f"{self.name}:{number}: <!-- {kind} {text} -->"
        if kind == "shows":
            self.shows = True
        else:
            self.marks = parse_marks(text, f"{self.name}:{number}")

    def _text(self, number: int, line: str) -> None:
        self._nothing_pending()
        if heading := _HEADING.match(line):
            anchor = re.sub(r"[^\w\- ]", "", heading[2].lower()).replace(" ", "-")
            self.headings.append((number, len(heading[1]), anchor))

    def _nothing_pending(self) -> None:
        if self.pending:
            raise MarkError(f"{self.pending} stands before no block; put it right above one")


_Clause = Callable[[Marks, re.Match[str]], Marks]
_CLAUSES: dict[str, _Clause] = {
    r'background ([\w-]+) until "(.+)"': lambda m, found: replace(m, background=found[1], until=found[2]),
    r'until interrupted after "(.+)"': lambda m, found: replace(m, interrupted_after=found[1]),
    r"stops ([\w-]+(?:, [\w-]+)*)": lambda m, found: replace(m, stops=tuple(found[1].split(", "))),
    r"exit (\d+)": lambda m, found: replace(m, exit_status=int(found[1])),
    r"where ([\w./-]+(?:, [\w./-]+)*)": lambda m, found: replace(m, needs=tuple(found[1].split(", "))),
    r"elsewhere in ([\w./-]+), because (.+)": lambda m, found: replace(
        m, elsewhere=found[1], reason=found[2]
    ),
    r"never, because (.+)": lambda m, found: replace(m, never=True, reason=found[1]),
}


def parse_marks(text: str, place: str) -> Marks:
    """Read what stands after ``runs:``."""
    marks = Marks()
    for clause in (part.strip() for part in text.split(";")):
        marks = _with_clause(marks, clause, place)
    if marks.elsewhere and not (ROOT / marks.elsewhere).is_file():
        raise MarkError(f"{place}: {marks.elsewhere} does not exist; name the test that runs the block")
    return marks


def _with_clause(marks: Marks, clause: str, place: str) -> Marks:
    for pattern, change in _CLAUSES.items():
        if found := re.fullmatch(pattern, clause):
            return change(marks, found)
    raise MarkError(f"{place}: <!-- runs: {clause} --> is no mark; tests/docs/blocks.py lists them")


def parse(text: str, name: str) -> Document:
    """Read a document's text."""
    return _Reader(name).read(enumerate(iter(text.splitlines()), start=1))


def documents(root: Path = ROOT) -> list[Path]:
    """Return every document: the README and what is in ``docs``."""
    return sorted([root / "README.md", *(root / "docs").rglob("*.md")])


def load(path: Path, root: Path = ROOT) -> Document:
    """Read a document of the repository; its name is its path from the root."""
    return parse(path.read_text(encoding="utf-8"), str(path.relative_to(root)))
