"""What released versions promised is kept, and a change that breaks it is found."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from scripts import contract

RELEASED = sorted(contract.RELEASED.glob("v*.binpb.gz"))
TASKS = "fleetwright/v1/task_service.proto"
ERRORS = "fleetwright/v1/errors.proto"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a folder with the contract as it is, to be edited."""
    shutil.copy(contract.ROOT / "buf.yaml", tmp_path)
    for folder in ("proto/fleetwright", "third_party/proto"):
        shutil.copytree(contract.ROOT / folder, tmp_path / folder)
    return tmp_path


@pytest.fixture
def released(copy: Path) -> Path:
    """Return the contract before an edit, as a release of it would be written."""
    target = copy / "released.binpb.gz"
    assert contract.buf("build", "proto", "-o", target, folder=copy).returncode == 0
    return target


def edit(folder: Path, name: str, pattern: str, replacement: str) -> None:
    path = folder / "proto" / name
    text, count = re.subn(pattern, replacement, path.read_text("utf-8"), count=1, flags=re.MULTILINE)
    assert count == 1, f"{pattern} does not occur in {name}"
    path.write_text(text, encoding="utf-8")


def test_there_is_a_released_contract() -> None:
    assert RELEASED


@pytest.mark.parametrize("version", RELEASED, ids=lambda path: path.name)
def test_the_contract_keeps_what_a_released_one_promised(version: Path) -> None:
    assert contract.breaks(contract.ROOT, version) == []


REQUIRED = "[(buf.validate.field).required = true]"
# What is done: the file, what stands there, what stands there then, and what is said of it.
BREAKING = {
    "renumbered": (TASKS, r"string request_id = 4", "string request_id = 14", 'present field "4"'),
    "renamed": (TASKS, r"string request_id = 4", "string call_id = 4", 'changed name from "request_id"'),
    "retyped": (TASKS, r"string next_page_token = 2", "bytes next_page_token = 2", "changed type"),
    "method removed": (TASKS, r"^  // GetTask reads.*\n.*rpc GetTask\(.*\n", "", 'present RPC "GetTask"'),
    "unstreamed": (TASKS, r"\(stream WatchTasksResponse\)", "(WatchTasksResponse)", "server streaming"),
    "value removed": (TASKS, r"^  // It failed as.*\n.*_DEAD = 11;\n", "", 'present enum value "11"'),
    "bound narrowed": (TASKS, r"max_len: 4096", "max_len: 4095", "string.max_len was 4096 and is 4095"),
    "required": (TASKS, r"(bool idempotent = 4);", rf"\1 {REQUIRED};", "required was absent and is True"),
    "pattern changed": (TASKS, r"\^tasks/\[a-z0-9\.-\]", "^tasks/[a-z0-9]", "string.pattern was"),
    "status moved": (
        ERRORS,
        r"// NOT_FOUND: no task",
        "// ABORTED: no task",
        "TASK_UNKNOWN: its status was NOT",
    ),
}
ADDING = {
    "field": (TASKS, r"(bool idempotent = 4;)", r"\1\n  // note.\n  string note = 16;"),
    "message": (TASKS, r"^(// AttemptState is where)", r"// Note is new.\nmessage Note {}\n\n\1"),
    "value": (TASKS, r"(TASK_STATE_DEAD = 11;)", r"\1\n  // New.\n  TASK_STATE_HELD = 12;"),
    "method": (
        TASKS,
        r"^(  // GetTask reads)",
        r"  rpc Touch(GetTaskRequest) returns (GetTaskResponse) {}\n\1",
    ),
    "bound widened": (TASKS, r"max_len: 4096", "max_len: 8192"),
    "rule removed": (TASKS, r" \[\(buf\.validate\.field\)\.uint32\.lte = 20\]", ""),
    "reason": (ERRORS, r"^(  // NOT_FOUND: no task)", r"  // ABORTED: new.\n  ERROR_REASON_NEW = 999;\n\1"),
}


@pytest.mark.parametrize("change", BREAKING)
def test_an_edit_that_breaks_clients_is_found(copy: Path, released: Path, change: str) -> None:
    name, pattern, replacement, said = BREAKING[change]
    edit(copy, name, pattern, replacement)
    assert said in "\n".join(contract.breaks(copy, released))


@pytest.mark.parametrize("change", ADDING)
def test_an_edit_that_only_adds_passes(copy: Path, released: Path, change: str) -> None:
    edit(copy, *ADDING[change])
    assert contract.breaks(copy, released) == []


def test_a_released_contract_is_not_written_again(capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in RELEASED}
    assert contract.main(["release"]) == 1
    assert "was released: raise the version first" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in RELEASED} == before


def test_a_contract_that_does_not_build_is_said_to_be_so(copy: Path, released: Path) -> None:
    edit(copy, TASKS, r"^message Task \{", "message Task {{")
    with pytest.raises(SystemExit, match="does not build"):
        contract.breaks(copy, released)
