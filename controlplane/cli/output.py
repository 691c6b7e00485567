"""What commands print: tables for people, JSON and YAML for programs, names for shells.

JSON and YAML are the contract's JSON mapping, with every field that is not a message, so that a program
finds the same keys each time. A list is one document with the response's own fields; a watch is one object
on each line in JSON, and one document after the other in YAML.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.cells import cell_len
from rich.console import Console
from rich.status import Status
from rich.text import Text

Item = TypeVar("Item")

_GAP = "   "
_NARROWEST_NAME = 12


class Format(StrEnum):
    """What ``-o`` takes."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


@dataclass(frozen=True)
class Column(Generic[Item]):
    """A column of a table, or a line of what ``show`` prints."""

    title: str
    value: Callable[[Item], str]
    wide: bool = False
    """Only with ``-o wide``."""
    style: Callable[[str], str] = lambda value: ""
    """A rich style for a value, such as ``green``; used on a terminal only."""


class Local(Protocol):
    """What is no message of the contract, because no server has it."""

    def as_dict(self) -> dict[str, Any]:
        """Return what programs get."""


Document = Message | Local


class _Terminal(Console):
    """Rich's console, except that a reader which went away is the root command's business."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


@dataclass(frozen=True)
class Output:
    """Where and how a command prints. ``now`` is when it began; ages count from there."""

    format: Format = Format.TABLE
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    @cached_property
    def console(self) -> Console:
        """Standard output; colour only on a terminal, and not with NO_COLOR."""
        return _Terminal(highlight=False, soft_wrap=True, emoji=False, markup=False)

    @cached_property
    def errors(self) -> Console:
        """Standard error."""
        return _Terminal(stderr=True, highlight=False, soft_wrap=True, emoji=False, markup=False)

    @property
    def for_people(self) -> bool:
        """Whether a table is asked for."""
        return self.format in {Format.TABLE, Format.WIDE}

    @property
    def for_documents(self) -> bool:
        """Whether whole messages are asked for."""
        return self.format in {Format.JSON, Format.YAML}

    @property
    def live(self) -> bool:
        """Whether a table is asked for, on a terminal, where it can be drawn again and again."""
        return self.for_people and self.console.is_terminal

    def items(
        self, response: Document, field_name: str, columns: Sequence[Column[Any]], empty: str = ""
    ) -> None:
        """Print a response with a list of items in ``field_name``.

        ``empty`` is what a person on a terminal is told, on standard error, where there are none.
        """
        found = getattr(response, field_name)
        if not self.for_people:
            self.document(response, found)
        elif found:
            self.lines(table(self.chosen(columns), found))
        elif self.errors.is_terminal:
            self.note(empty or f"no {field_name.replace('_', ' ')}")

    def one(self, item: Document, columns: Sequence[Column[Any]]) -> None:
        """Print one object: a line for each column, or the object itself for programs."""
        if not self.for_people:
            self.document(item, [item])
            return
        chosen = [(column, clean(column.value(item))) for column in columns]
        width = max(cell_len(column.title) for column, _ in chosen) + 1
        for column, value in chosen:
            if value:
                head = Text(f"{column.title}:".ljust(width + 1), "bold")
                self.lines([head + Text(value, column.style(value))])

    def change(self, message: Document, item: Any, lines: Callable[[], Iterable[Text]]) -> None:
        """Print one message of a watch about ``item``; ``lines`` are what people see of it."""
        if self.format is Format.JSON:
            self.text(json.dumps(as_dict(message)))
        elif self.format is Format.YAML:
            self.text("---\n" + _yaml(as_dict(message)))
        elif self.format is Format.NAME:
            self.text(item.name)
        else:
            self.lines(lines())
        sys.stdout.flush()

    def text(self, text: str) -> None:
        """Print a line as it is."""
        sys.stdout.write(f"{text}\n")

    def lines(self, lines: Iterable[Text]) -> None:
        """Print lines with their colours, where they are wanted."""
        if self.console.is_terminal:
            for line in lines:
                self.console.print(line)
        else:
            sys.stdout.writelines(f"{line.plain.rstrip()}\n" for line in lines)

    def note(self, text: str) -> None:
        """Tell a person something that is no result, on standard error."""
        self.errors.print(Text(clean(text), "dim"))

    def summary(self, text: str) -> None:
        """Tell a person at a terminal how much was printed; programs and files do not get it."""
        if self.for_people and self.console.is_terminal and self.errors.is_terminal:
            self.note(text)

    def more(self, text: str) -> None:
        """Tell that a table is not all there is; documents say so themselves."""
        if self.for_people:
            self.note(text)

    @contextmanager
    def progress(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show on a terminal that long work goes on; gives a function that changes the text."""
        if not self.errors.is_terminal:
            yield lambda text: None
            return
        with Status(text, console=self.errors) as status:
            yield status.update

    def chosen(self, columns: Sequence[Column[Any]]) -> list[Column[Any]]:
        """Return the columns that the format asks for."""
        return [column for column in columns if not column.wide or self.format is Format.WIDE]

    def document(self, message: Document, items: Sequence[Any]) -> None:
        """Print a message for programs; ``items`` are what ``-o name`` names."""
        if self.format is Format.NAME:
            for item in items:
                self.text(item.name)
        elif self.format is Format.YAML:
            sys.stdout.write(_yaml(as_dict(message)))
        else:
            self.text(json.dumps(as_dict(message), indent=2))


def as_dict(document: Document) -> dict[str, Any]:
    """Return a message by the contract's JSON mapping, with every field that is not a message."""
    if not isinstance(document, Message):
        return document.as_dict()
    return _ordered(MessageToDict(document, always_print_fields_with_no_presence=True), document.DESCRIPTOR)


def _ordered(found: dict[str, Any], descriptor: Any) -> dict[str, Any]:
    """Return the fields in the order of the contract; protobuf puts those that are empty last."""
    ordered = {}
    for field_ in descriptor.fields:
        if field_.json_name in found:
            ordered[field_.json_name] = _ordered_value(found[field_.json_name], field_.message_type)
    # Any and the like have other keys than fields.
    return ordered if len(ordered) == len(found) else found


def _ordered_value(value: Any, descriptor: Any) -> Any:
    if descriptor is None or descriptor.GetOptions().map_entry:
        return value
    if isinstance(value, list):
        return [_ordered_value(item, descriptor) for item in value]
    # Times, durations and such are written as strings; what is no field of theirs stays as it is.
    return _ordered(value, descriptor) if isinstance(value, dict) else value


def table(columns: Sequence[Column[Item]], items: Iterable[Item], room: int | None = None) -> list[Text]:
    """Return a table with its head, each column as wide as its widest value.

    Where that is more than ``room``, the first column loses the beginning of its values: names differ
    at their end.
    """
    rows = [[clean(column.value(item)) for column in columns] for item in items]
    widths = [
        max([cell_len(column.title), *(cell_len(row[place]) for row in rows)])
        for place, column in enumerate(columns)
    ]
    if room is not None:
        excess = sum(widths) + len(_GAP) * (len(widths) - 1) - room
        widths[0] = min(widths[0], max(widths[0] - excess, _NARROWEST_NAME, cell_len(columns[0].title)))
        for row in rows:
            if cell_len(row[0]) > widths[0]:
                row[0] = "…" + row[0][1 - widths[0] :]
    head = aligned([column.title for column in columns], widths, ["bold"] * len(columns))
    return [head] + [
        aligned(row, widths, [column.style(value) for column, value in zip(columns, row, strict=True)])
        for row in rows
    ]


def clean(value: str) -> str:
    """Return a value without what would act on a terminal: agents choose some of what is shown."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in value)


def aligned(values: Sequence[str], widths: Sequence[int], styles: Sequence[str]) -> Text:
    """Return one line of a table."""
    line = Text(no_wrap=True)
    last = len(values) - 1
    for place, (value, width, style) in enumerate(zip(values, widths, styles, strict=True)):
        line.append(value, style or None)
        if place < last:
            line.append(" " * (width - cell_len(value)) + _GAP)
    return line


def _yaml(document: dict[str, Any]) -> str:
    # Not at the top: only -o yaml needs it.
    import yaml

    # The one in C is ten times faster, which 10,000 agents make visible; it is not in every build.
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    text: str = yaml.dump(document, Dumper=dumper, sort_keys=False, allow_unicode=True, width=10_000)
    return text
