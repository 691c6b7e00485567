"""What import-linter cannot say of who may import what; the rest stands in `.importlinter`."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = ("controlplane", "agent_sim", "certs")
# Reading a clock or a die makes a decision irreproducible; rules are given both.
IMPURE_CALLS = {
    "datetime.now",
    "datetime.utcnow",
    "datetime.today",
    "date.today",
    "time.time",
    "time.time_ns",
    "time.monotonic",
    "time.monotonic_ns",
    "time.sleep",
    "random.random",
    "random.uniform",
    "uuid.uuid4",
    "os.urandom",
    "open",
    "print",
}


def modules_of(*folders: str) -> list[Path]:
    return sorted(path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def is_rules(path: Path) -> bool:
    return path.stem in ("rules", "redaction") or "rules" in path.parts


def parse(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), str(path))


def imported_by(tree: ast.Module, module: str) -> Iterator[str]:
    """Yield the full name of every module that is imported, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            yield ".".join([*base, *([node.module] if node.module else [])])


def foreign_to_rules(tree: ast.Module, module: str) -> list[str]:
    """List what a rules module imports beside the standard library, its own package and its room's rules.

    What explains a room's decisions asks the rules that make them, which are as pure.
    """
    own = module[: module.index("rules") + len("rules")] if "rules" in module else module
    room = ".".join([*module.split(".")[:2], "rules"])
    return [
        name
        for name in imported_by(tree, module)
        if name.split(".")[0] not in sys.stdlib_module_names
        and name not in (own, room)
        and not name.startswith((f"{own}.", f"{room}."))
    ]


def impure_calls(tree: ast.Module) -> list[str]:
    """List the calls that read a clock, a die or the world."""
    calls = (ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call))
    return [call for call in calls if ".".join(call.split(".")[-2:]) in IMPURE_CALLS]


def environment_reads(tree: ast.Module) -> list[str]:
    """List every way to the environment: os.environ, os.getenv, their imports, and pydantic-settings."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv", "getenvb"}:
            found.append(ast.unparse(node))
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            found += [alias.name for alias in node.names if alias.name.startswith(("environ", "getenv"))]
    return found + [name for name in imported_by(tree, "") if name.split(".")[0] == "pydantic_settings"]


RULES = [path for path in modules_of(*PROGRAMS) if is_rules(path)]


@pytest.mark.parametrize("path", RULES, ids=str)
def test_rules_import_only_the_standard_library(path: Path) -> None:
    assert foreign_to_rules(parse(path), module_name(path)) == []


@pytest.mark.parametrize("path", RULES, ids=str)
def test_rules_read_no_clock_and_no_die(path: Path) -> None:
    assert impure_calls(parse(path)) == []


def test_settings_alone_reads_the_environment_of_the_server() -> None:
    readers = {
        str(path): reads
        for path in modules_of("controlplane", "certs")
        if path.parts[1] not in {"settings", "settings.py"} and (reads := environment_reads(parse(path)))
    }
    assert readers == {}


def test_a_foreign_import_of_rules_is_found_wherever_it_hides() -> None:
    source = (
        "import enum, grpc\nfrom .. import store\ndef f():\n    from controlplane.errors import NotFound\n"
    )
    found = foreign_to_rules(ast.parse(source), "controlplane.tasks.rules")
    assert found == ["grpc", "controlplane", "controlplane.errors"]


def test_a_rules_package_may_import_its_own_parts() -> None:
    source = (
        "from controlplane.tasks.rules.states import State\nfrom controlplane.tasks.rules_of_others import x"
    )
    found = foreign_to_rules(ast.parse(source), "controlplane.tasks.rules.offline")
    assert found == ["controlplane.tasks.rules_of_others"]


def test_rules_within_a_room_may_ask_those_of_the_room() -> None:
    source = "from controlplane.tasks.rules import State\nfrom controlplane.agents.rules import Presence"
    found = foreign_to_rules(ast.parse(source), "controlplane.tasks.explaining.rules.held")
    assert found == ["controlplane.agents.rules"]


@pytest.mark.parametrize("call", ["datetime.now(UTC)", "datetime.datetime.now()", "time.time()", "open('x')"])
def test_an_impure_call_is_found(call: str) -> None:
    assert impure_calls(ast.parse(call))


def test_a_clock_that_is_passed_in_is_no_impure_call() -> None:
    assert impure_calls(ast.parse("clock.now()")) == []


@pytest.mark.parametrize(
    "source",
    [
        "os.environ['A']",
        "os.getenv('A')",
        "from os import environ",
        "import pydantic_settings",
        "from pydantic_settings import BaseSettings",
    ],
)
def test_a_read_of_the_environment_is_found(source: str) -> None:
    assert environment_reads(ast.parse(source))
