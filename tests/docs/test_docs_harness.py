"""The harness that runs documents fails where a document is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs.blocks import MarkError, parse
from tests.docs.clone import variables
from tests.docs.session import DocumentError, run_document

FENCE = "```"


def block(text: str, *, language: str = "sh", mark: str = "") -> str:
    comment = f"<!-- {mark} -->\n" if mark else ""
    return f"{comment}{FENCE}{language}\n{text}\n{FENCE}\n"


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., list[str]]:
    """Runs a document made of blocks, as its test does, in an empty folder."""

    def run(*blocks: str) -> list[str]:
        return run_document(parse("".join(blocks), "a.md"), tmp_path, variables(tmp_path / "home"))

    return run


Read = Callable[..., list[str]]


def test_a_command_that_fails_fails_the_document(read: Read) -> None:
    with pytest.raises(DocumentError, match=r"a\.md:1: ls nothing-there\nended with 2, not 0"):
        read(block("ls nothing-there\ntrue"))


def test_a_placeholder_fails_the_document(read: Read) -> None:
    with pytest.raises(DocumentError, match="ended with 2, not 0"):
        read(block("cat <name>"))


def test_a_block_sees_what_the_block_before_it_made(read: Read) -> None:
    read(
        block("greet() {\n  echo hello \\\n    $1\n}"),
        block("greet 7"),
        block("hello 8", language="", mark="shows"),
    )


def test_a_command_that_is_cut_off_fails_the_document(read: Read) -> None:
    with pytest.raises(DocumentError, match="not whole"):
        read(block("echo 'one"))


def test_an_exit_status_that_is_named_is_wanted(read: Read) -> None:
    read(block("(exit 3)", mark="runs: exit 3"))
    with pytest.raises(DocumentError, match="ended with 0, not 3"):
        read(block("true", mark="runs: exit 3"))


@pytest.mark.parametrize("shown", ["one", "hello world 1", "hello 1 world\nhello 1 world"])
def test_what_is_shown_and_not_said_fails_the_document(read: Read, shown: str) -> None:
    with pytest.raises(DocumentError, match="was not said in this order"):
        read(block("echo hello 1 world"), block(shown, language="", mark="shows"))


@pytest.mark.parametrize("shown", ["hello 2.5 KB, b, c", "hello … c", "hello  9 KB, … c"])
def test_what_is_shown_may_have_other_numbers_and_gaps(read: Read, shown: str) -> None:
    read(block("echo hello 1.25 KB, b, c"), block(shown, language="", mark="shows"))


def test_a_console_block_wants_what_it_shows(read: Read) -> None:
    read(block("$ echo one\none\n$ true", language="console"))
    with pytest.raises(DocumentError, match="was not said"):
        read(block("$ echo one\ntwo", language="console"))


def test_a_background_command_runs_until_it_is_stopped(read: Read) -> None:
    held = "trap 'rm here; exit 0' INT; touch here; echo up; while :; do read -r _; done"
    in_background = block(f'bash -c "{held}"', mark='runs: background one until "up"')
    read(in_background, block("test -e here"), block("test ! -e here", mark="runs: stops one"))


def test_a_background_command_that_ends_fails_the_document(read: Read) -> None:
    with pytest.raises(DocumentError, match="was to run on, and ended with 0"):
        read(block("echo no", mark='runs: background one until "up"'))


def test_a_background_command_that_ends_badly_after_ctrl_c_fails_the_document(read: Read) -> None:
    held = "trap 'exit 9' INT; echo up; while :; do read -r _; done"
    with pytest.raises(DocumentError, match="one ended with 9 after Ctrl-C"):
        read(block(f'bash -c "{held}"', mark='runs: background one until "up"'))


def test_a_line_until_ctrl_c_is_interrupted(read: Read) -> None:
    read(block("bash -c 'echo up; read -r _'    # until Ctrl-C\necho after"))


def test_a_block_of_a_missing_program_is_left_out_and_named_with_what_it_shows(read: Read) -> None:
    blocks = (
        block("no-such-program", mark="runs: where no-such-program"),
        block("x", language="", mark="shows"),
    )
    assert read(block("echo y"), *blocks) == ["no-such-program"]


def test_a_block_of_a_path_that_is_there_is_run(read: Read) -> None:
    blocks = (block("touch here"), block("rm here", mark="runs: where here, ls"))
    with pytest.raises(DocumentError, match="ended with 1, not 0"):
        read(*blocks, block("ls here | grep -q here"))


def test_a_traceback_fails_the_document(read: Read) -> None:
    with pytest.raises(DocumentError, match="ended with a traceback"):
        read(block("echo 'Traceback (most recent call last):'"))


def test_a_document_begins_with_a_section_of_another_one() -> None:
    text = f"# A\n{block('1')}## B\n{block('2')}### C\n{block('3')}## D\n{block('4')}"
    assert [b.lines for b in parse(text, "a.md").section("b")] == [("2",), ("3",)]


@pytest.mark.parametrize(
    "mark",
    [
        "runs: sometimes",
        "runs: never",
        'runs: background one until ""',
        "runs: elsewhere in tests/no.py, because it is",
    ],
)
def test_a_mark_that_cannot_be_read_is_refused(mark: str) -> None:
    with pytest.raises(MarkError, match=r"a\.md:1"):
        parse(block("true", mark=mark), "a.md")


@pytest.mark.parametrize("text", ["<!-- shows -->\nwords\n", "<!-- runs: exit 2 -->\n", f"{FENCE}sh\ntrue\n"])
def test_a_mark_or_a_fence_without_its_block_is_refused(text: str) -> None:
    with pytest.raises(MarkError, match=r"a\.md:1"):
        parse(text, "a.md")


@pytest.mark.parametrize(
    "text", ["$ true", ".venv/bin/fleetwright init", "make demo", "curl localhost:7446/readyz"]
)
def test_commands_without_a_language_are_noticed(text: str) -> None:
    assert parse(block(text, language=""), "a.md").blocks[0].looks_like_commands()
