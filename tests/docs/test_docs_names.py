"""Commands, options and make targets that documents name exist, also where nothing runs them."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.docs.blocks import ROOT, documents, parse

PROGRAMS = {
    "fleetwright": "controlplane.cli.main",
    "fleetwright-agent": "agent_sim.agent.commands",
    "fleetwright-sim": "agent_sim.fleet.cli",
    "fleetwright-certs": "certs.cli",
}
DOCUMENTS = documents()
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]

_FENCED = re.compile(r"^ *(```+).*?^ *\1$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_CALL = re.compile(r"(?:^|[\s(;|&])(?:\S*/)?(fleetwright(?:-agent|-sim|-certs)?) ([^|&>;)#]*)")
_MAKE = re.compile(r"(?:^|[\s(;|&])make ([a-z-]+)")


def commands_of(text: str) -> Iterator[str]:
    """Return what a document has of commands: the lines of its blocks, and the code in its prose."""
    for block in parse(text, "a document").commands():
        yield from "\n".join(block.lines).replace("\\\n", " ").splitlines()
    yield from _CODE.findall(_FENCED.sub("", text))


def unknown_in(program: str, words: list[str]) -> str:
    """Return the first word that is no command or option of a program, or nothing."""
    command: Any = typer.main.get_command(importlib.import_module(PROGRAMS[program]).app)
    options = {"--help"} | {name for parameter in command.params for name in parameter.opts}
    for word in words:
        name = word.partition("=")[0]
        if name.startswith("--"):
            if name not in options:
                return word
        elif hasattr(command, "list_commands"):
            context = command.make_context(program, [], resilient_parsing=True)
            if word not in command.list_commands(context):
                return word
            _, command, _ = command.resolve_command(context, [word])
            options |= {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
    return ""


def unknown_commands(commands: Iterator[str]) -> list[str]:
    calls = [(program, rest.split()) for line in commands for program, rest in _CALL.findall(line)]
    found = [(program, words, unknown_in(program, words)) for program, words in calls]
    return [f"{program} {' '.join(words)}: {unknown}" for program, words, unknown in found if unknown]


def unknown_targets(commands: Iterator[str]) -> set[str]:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    return {name for line in commands for name in _MAKE.findall(line)} - targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_command_and_option_that_a_document_names_exists(document: Path) -> None:
    assert unknown_commands(commands_of(document.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=NAMES)
def test_every_make_target_that_a_document_names_exists(document: Path) -> None:
    assert unknown_targets(commands_of(document.read_text(encoding="utf-8"))) == set()


def test_the_readme_names_every_program_that_it_is_for() -> None:
    lines = commands_of((ROOT / "README.md").read_text(encoding="utf-8"))
    called = {program for line in lines for program, _ in _CALL.findall(line)}
    assert {"fleetwright", "fleetwright-agent", "fleetwright-sim"} <= called


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("`fleetwright agents lst`", ["fleetwright agents lst: lst"]),
        ("`fleetwright agents list --fliter x`", ["fleetwright agents list --fliter x: --fliter"]),
        (
            "```sh\n(umask 077; .venv/bin/fleetwright \\\n  token create) > x\n```",
            ["fleetwright token create: token"],
        ),
        ("`fleetwright init --host NAME`, `fleetwright agents`, `fleetwright.v1`", []),
    ],
)
def test_a_command_or_an_option_that_does_not_exist_is_found(text: str, unknown: list[str]) -> None:
    assert unknown_commands(commands_of(text)) == unknown


def test_a_make_target_that_does_not_exist_is_found() -> None:
    assert unknown_targets(iter(["make demo", "cd x && make tset"])) == {"tset"}
