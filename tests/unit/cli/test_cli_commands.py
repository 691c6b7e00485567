"""The list of commands, and what each says of itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from controlplane.cli import main
from controlplane.cli.main import NOUNS, VERBS
from tests.support.process import environment


def commands() -> Iterator[tuple[str, Any]]:
    """Yield every command with its words."""
    for verb in VERBS:
        yield verb, main._loaded(verb)
    for noun in NOUNS:
        for verb, command in main._loaded(noun).commands.items():
            yield f"{noun} {verb}", command
            for below, inner in getattr(command, "commands", {}).items():
                yield f"{noun} {verb} {below}", inner


COMMANDS = dict(commands())


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_teaches_by_an_example_of_itself(words: str) -> None:
    text = COMMANDS[words].help or ""
    assert "Example" in text
    assert f"fleetwright {words}" in text


@pytest.mark.parametrize("words", COMMANDS)
def test_every_option_of_a_command_says_what_it_is(words: str) -> None:
    silent = [option.name for option in COMMANDS[words].params if not getattr(option, "help", "")]
    assert silent == []


@pytest.mark.parametrize("noun", NOUNS)
def test_a_noun_says_the_same_in_the_list_and_in_its_help(noun: str) -> None:
    assert (main._loaded(noun).help or "").splitlines()[0] == NOUNS[noun].help


@pytest.mark.parametrize("noun", NOUNS)
def test_the_list_names_every_verb_of_a_noun(noun: str) -> None:
    verbs = NOUNS[noun].help.removesuffix(".").split(": ")[-1].split(", ")
    assert sorted(verbs) == sorted(main._loaded(noun).commands)


def slow_imports_of(script: str, *slow: str) -> str:
    """Run a script and return which of the modules ``slow`` it has imported."""
    words = f"import sys\n{script}\nprint(sorted(set({slow}) & set(sys.modules)), file=sys.stderr)"
    ended = subprocess.run(
        [sys.executable, "-c", words], env=environment({}), capture_output=True, text=True, check=True
    )
    return ended.stderr.strip()


def test_help_waits_for_no_library_of_servers_or_clients() -> None:
    script = "from controlplane.cli.main import app\ntry:\n    app(['--help'])\nexcept SystemExit:\n    pass"
    assert slow_imports_of(script, "grpc", "pydantic", "sqlalchemy", "cryptography", "rich.table") == "[]"


@pytest.mark.parametrize("noun", ["agents", "packages", "advisories"])
def test_a_client_does_not_wait_for_the_server(noun: str) -> None:
    script = f"from controlplane.cli import main\nmain._loaded({noun!r})"
    slow = ("sqlalchemy", "controlplane.bootstrap", "alembic", "uvloop", "tuf", "dbos")
    assert slow_imports_of(script, *slow) == "[]"
