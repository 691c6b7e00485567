"""How failures become words and statuses, without a server."""

from __future__ import annotations

import json
from datetime import timedelta

import grpc
import pytest
import typer
from fleetwright.errors import AddressError, IdentityError

from controlplane.cli.calling import pointed
from controlplane.cli.failures import CommandFailed, Exit, tell, understand, wants_json


@pytest.mark.parametrize(
    ("words", "json_wanted"),
    [
        (["agents", "list", "-o", "json"], True),
        (["agents", "list", "-ojson"], True),
        (["agents", "list", "--output=json"], True),
        (["agents", "list", "--output", "json", "--nonsense"], True),
        (["agents", "list", "-o", "yaml"], False),
        (["agents", "show", "json"], False),
        ([], False),
    ],
)
def test_a_command_line_that_asks_for_json_is_known_unparsed(words: list[str], json_wanted: bool) -> None:
    assert wants_json(words) is json_wanted


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (CommandFailed("x", Exit.NOT_FOUND), Exit.NOT_FOUND),
        (typer.BadParameter("x"), Exit.USAGE),
        (IdentityError("x"), Exit.NOT_ALLOWED),
        (AddressError("x"), Exit.USAGE),
        (PermissionError(13, "x", "file"), Exit.FAILED),
    ],
)
def test_each_kind_of_failure_has_its_status(error: Exception, status: Exit) -> None:
    understood = understand(error)
    assert understood is not None
    assert understood.exit is status
    assert "x" in understood.message


def test_a_defect_is_not_explained_away() -> None:
    assert understand(ZeroDivisionError()) is None


def test_programs_get_every_part_of_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    failure = CommandFailed(
        "wait", Exit.FAILED, "RESOURCE_EXHAUSTED", "RATE_LIMITED", [("f", "d")], timedelta(seconds=2.5)
    )
    tell(failure, as_json=True)
    assert json.loads(capsys.readouterr().err) == {
        "error": {
            "code": "RESOURCE_EXHAUSTED",
            "reason": "RATE_LIMITED",
            "message": "wait",
            "violations": [{"field": "f", "description": "d"}],
            "retryAfter": "2.5s",
            "metadata": {},
            "exitStatus": 1,
        }
    }


def refused(position: str, field: str = "filter") -> CommandFailed:
    return CommandFailed(
        "no", Exit.USAGE, grpc.StatusCode.INVALID_ARGUMENT.name, "FILTER_INVALID", [(field, "no")],
        metadata={"position": position},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "position", "lines"),
    [
        ("hostnam = x", "0", ["  hostnam = x", "  ^"]),
        ("a = b", "5", ["  a = b", "       ^"]),
        ("名 = 1 AND x", "10", ["  名 = 1 AND x", "             ^"]),
        ("a\tb", "2", ["  a\N{REPLACEMENT CHARACTER}b", "    ^"]),
    ],
)
def test_a_caret_stands_under_the_place(text: str, position: str, lines: list[str]) -> None:
    assert pointed(refused(position), {"filter": text}).hint.split("\n") == lines


def test_of_a_long_filter_only_the_surroundings_are_shown() -> None:
    text = "a = 1 AND " * 200
    first, second = pointed(refused("1000"), {"filter": text}).hint.split("\n")
    assert len(first) < 130
    assert second.index("^") == 62


@pytest.mark.parametrize("position", ["", "-1", "x", "9999"])
def test_without_a_place_in_the_text_there_is_no_caret(position: str) -> None:
    assert pointed(refused(position), {"filter": "a = b"}).hint == ""
    assert pointed(refused("0"), {"limit": 1}).hint == ""
