"""What the document on compatibility promises is what the code has, where the code can be asked."""

from __future__ import annotations

import re
from pathlib import Path

from controlplane.cli.failures import Exit
from controlplane.filtering.pages import MAX_TOKEN_LENGTH
from controlplane.sessions.rules import PROTOCOL_VERSIONS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
PROTOS = "".join(path.read_text("utf-8") for path in (ROOT / "proto" / "fleetwright").rglob("*.proto"))


def test_every_exit_status_of_the_command_is_promised() -> None:
    table = TEXT.split("| exit status |")[1].split("\n\n")[0]
    assert re.findall(r"^\| (\d+) \|", table, re.MULTILINE) == [str(int(status)) for status in Exit]


def test_every_module_of_the_python_package_is_public_or_has_an_underscore() -> None:
    package = ROOT / "proto" / "python" / "fleetwright"
    modules = {
        path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    sentence = TEXT.split("Public are ")[1].split(": names without")[0]
    promised = set(re.findall(r"`fleetwright\.(\w+)`", sentence))
    assert promised == {name for name in modules if not name.startswith("_")}


def test_every_kind_of_resource_name_is_promised() -> None:
    sentence = TEXT.split("Resource names are ")[1].split(": a collection")[0].split(":\na collection")[0]
    assert set(re.findall(r"`(\w+)/", sentence)) == set(re.findall(r'pattern: "\^(\w+)/', PROTOS))


def test_the_protocol_version_and_the_lengths_of_tokens_are_those_of_the_code() -> None:
    assert f"in Hello, {PROTOCOL_VERSIONS[-1]} today" in TEXT
    assert f"`page_token` | text of at most {MAX_TOKEN_LENGTH:,} characters" in TEXT
    assert {int(size) for size in re.findall(r"(?:page|resume)_token = .*max_len = (\d+)", PROTOS)} == {1024}
    assert {int(size) for size in re.findall(r"etag = .*max_len = (\d+)", PROTOS)} == {64}
