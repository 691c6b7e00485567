"""Facts and lists of files as JSON: back as they were, and nothing else."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.packaging.archives.listing import (
    facts_from_json,
    facts_to_json,
    files_from_json,
    files_to_json,
)
from controlplane.packaging.records import ArtefactFacts, ArtefactType, FileEntry

ENTRIES = [
    FileEntry("a/ü", 3, "a" * 64, 0o755),
    FileEntry("b", 0, "b" * 64, 0o777, link_target="a/ü", sha1="c" * 40),
]
FACTS = ArtefactFacts(ArtefactType.DEB, "x", "1", "amd64", "linux", {"summary": "s"})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=6),
    max_leaves=12,
)


def test_files_and_facts_come_back_as_they_were() -> None:
    assert files_from_json(files_to_json(ENTRIES)) == ENTRIES
    assert facts_from_json(json.loads(json.dumps(facts_to_json(FACTS)))) == FACTS


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "/a"},
        {"path": "a//b"},
        {"path": "a/.."},
        {"path": ""},
        {"path": "a\0"},
        {"path": "x" * 2_000},
        {"path": "\ud800"},
        {"path": 1},
        {"size": -1},
        {"size": True},
        {"size": 1 << 60},
        {"mode": 0o4755},
        {"sha256": "A" * 64},
        {"sha1": "c"},
        {"link_target": "x" * 2_000},
        {"more": 1},
    ],
)
def test_an_entry_that_cannot_be_is_refused(changes: dict[str, Any]) -> None:
    [first, *_] = json.loads(files_to_json(ENTRIES))
    with pytest.raises(ValueError, match=r"files\[0\]|surrogates|encode"):
        files_from_json(json.dumps([{**first, **changes}]).encode())


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "other"},
        {"name": None},
        {"name": "a\0b"},
        {"name": "\ud800"},
        {"details": []},
        {"details": {"a": 1}},
        {"details": {str(number): "" for number in range(200)}},
        {"version": "x" * (1 << 20)},
    ],
)
def test_facts_that_cannot_be_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"facts|valid|surrogates"):
        facts_from_json({**facts_to_json(FACTS), **changes})


@settings(max_examples=200, deadline=None)
@given(JSON, st.binary(max_size=60))
def test_anything_else_is_a_value_error(value: Any, data: bytes) -> None:
    for read in (lambda: facts_from_json(value), lambda: files_from_json(json.dumps(value).encode())):
        with suppress(ValueError):
            read()
    with suppress(ValueError):
        files_from_json(data)
