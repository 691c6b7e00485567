"""The documents: links resolve, paths exist, tables and examples are those of the code."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import protovalidate
import pytest
from fleetwright.v1 import agent_service_pb2
from google.protobuf import text_format
from google.protobuf.message import Message

from scripts import doc_tables

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
PROTOCOL = (ROOT / "docs/agent-protocol.md").read_text(encoding="utf-8")

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_PATH = re.compile(r"`((?:controlplane|agent_sim|certs|tests|docs|scripts|proto|requirements)/[\w./-]+)`")


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def prose(document: Path) -> str:
    return _FENCE.sub("", document.read_text(encoding="utf-8"))


def anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as the usual renderers make them."""
    headings = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(document: Path) -> Iterator[str]:
    for link in _LINK.findall(prose(document)):
        if link.startswith(("https://", "http://")):
            continue
        target, _, anchor = link.partition("#")
        path = (document.parent / target).resolve() if target else document
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
            yield link


@pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
def test_every_link_inside_the_repository_resolves(document: Path) -> None:
    assert list(broken_links(document)) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=names(DOCUMENTS))
def test_every_path_that_a_document_names_exists(document: Path) -> None:
    missing = [path for path in _PATH.findall(prose(document)) if not (ROOT / path).exists()]
    assert missing == []


def test_a_broken_link_and_a_missing_anchor_are_found(tmp_path: Path) -> None:
    document = tmp_path / "a.md"
    document.write_text("# One two\n[a](b.md) [b](#one-two) [c](#three) [d](https://example.org/x)\n")
    assert list(broken_links(document)) == ["b.md", "#three"]


@pytest.mark.parametrize("table", doc_tables.TABLES)
def test_every_table_is_the_one_that_the_code_gives(table: str) -> None:
    document = ROOT / doc_tables.TABLES[table].document
    text = document.read_text(encoding="utf-8")
    assert doc_tables.with_table(text, table) == text, (
        "run python scripts/doc_tables.py, and read what it changed"
    )


@pytest.mark.parametrize("reason", doc_tables.reasons(), ids=lambda reason: reason.name)
def test_every_reason_that_concerns_an_agent_has_an_answer_in_the_protocol(reason: doc_tables.Reason) -> None:
    administrative = {
        *("FILTER_INVALID", "PAGE_TOKEN_INVALID", "FIELD_MASK_INVALID", "ETAG_MISMATCH", "REQUEST_ID_REUSED"),
        *("TASK_UNKNOWN", "TASK_FINAL", "SELECTOR_EMPTY", "ENROLLMENT_TOKEN_UNKNOWN"),
        *("IDENTITY_UNKNOWN", "OPERATOR_LAST", "TASK_NOT_REPLAYABLE"),
        *("UPLOAD_UNKNOWN", "UPLOAD_OFFSET", "DIGEST_MISMATCH", "ARTEFACT_UNKNOWN"),
        *("PIPELINE_UNKNOWN", "PIPELINE_STATE", "EXCEPTION_UNKNOWN", "APPROVER_IS_REQUESTER"),
        *("ADVISORIES_ROLLED_BACK", "ADVISORIES_MALFORMED", "TRUST_REFUSED"),
    }
    assert (f"`{reason.name}`" in PROTOCOL) is (reason.name not in administrative)


def test_every_reconnect_reason_is_explained() -> None:
    kinds = agent_service_pb2.ReconnectReason.DESCRIPTOR.values_by_name
    words = [name.removeprefix("RECONNECT_REASON_") for name in kinds]
    assert [word for word in words if word != "UNSPECIFIED" and f"`{word}`" not in PROTOCOL] == []


def test_every_decision_stands_in_the_list_of_decisions() -> None:
    folder = ROOT / "docs/decisions"
    listed = _LINK.findall((folder / "README.md").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(path.name for path in folder.glob("[0-9]*.md"))


EXAMPLES = [text for kind, text in _FENCE.findall(PROTOCOL) if kind == "textproto"]


def parsed(example: str) -> Message:
    found = re.match(r"# (\w+), (?:agent|server) to (?:agent|server)\n", example)
    assert found is not None, example
    message: Message = getattr(agent_service_pb2, found[1])()
    return text_format.Parse(example, message)


def test_the_example_session_has_every_stream_both_ways() -> None:
    types = {type(parsed(example)).__name__ for example in EXAMPLES}
    assert types == {f"{s}{w}" for s in ("Heartbeat", "Tasks", "Telemetry") for w in ("Request", "Response")}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.splitlines()[0])
def test_every_message_of_the_example_session_keeps_the_rules_of_the_contract(example: str) -> None:
    message = parsed(example)
    protovalidate.validate(message)
    if written := re.search(r"^# bytes: (.*)$", example, re.MULTILINE):
        body = message.SerializeToString()
        assert bytes.fromhex(written[1]) == b"\0" + len(body).to_bytes(4, "big") + body


ROOMS = ("agents", "identity", "packaging", "processes", "sessions", "tasks", "telemetry")


def calls_of(room: str) -> set[str]:
    """Return the rooms that a room imports."""
    found = set()
    for path in (ROOT / "controlplane" / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[1] if node.module.startswith("controlplane.") else "")
    return found & set(ROOMS) - {room}


def test_the_readme_draws_the_calls_between_rooms_as_they_are() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    either = "|".join(ROOMS)
    drawn = set(re.findall(rf"^ +({either}) --> ({either})$", text, re.MULTILINE))
    assert drawn == {(room, called) for room in ROOMS for called in calls_of(room)}


def test_the_renderer_says_which_table_has_drifted() -> None:
    command = [sys.executable, "scripts/doc_tables.py", "--check"]
    ended = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env={"PYTHONPATH": "."}
    )
    assert (ended.returncode, ended.stdout) == (0, "drifted: none\n"), ended.stderr
