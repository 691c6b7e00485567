"""The count itself: what it must not take for good."""

from __future__ import annotations

import json
from pathlib import Path

from faults.books import Books


def books_of(path: Path, beats: dict[str, list[float]]) -> Books:
    lines = [
        json.dumps({"e": "beat", "a": agent, "t": time, "latency": 0.01})
        for agent, times in beats.items()
        for time in times
    ]
    path.write_text("".join(line + "\n" for line in lines))
    books = Books(path)
    books.look()
    return books


def test_an_agent_that_is_answered_all_the_time_has_missed_nothing(tmp_path: Path) -> None:
    books = books_of(tmp_path / "books", {"a": [101.0, 103.0, 105.0, 107.0, 109.0]})
    assert books.missed_beats(["a"], 4, since=100, until=110) == 0


def test_an_agent_that_was_answered_once_and_never_again_has_missed_a_beat(tmp_path: Path) -> None:
    books = books_of(tmp_path / "books", {"a": [101.0, 103.0, 105.0, 107.0, 109.0], "b": [101.0]})
    assert books.missed_beats(["a", "b"], 4, since=100, until=110) == 1


def test_an_agent_that_was_never_answered_has_missed_a_beat(tmp_path: Path) -> None:
    books = books_of(tmp_path / "books", {"a": [101.0, 103.0, 105.0, 107.0, 109.0]})
    assert books.missed_beats(["a", "b"], 4, since=100, until=110) == 1


def test_each_gap_counts(tmp_path: Path) -> None:
    books = books_of(tmp_path / "books", {"a": [101.0, 106.0, 108.0, 113.0]})
    assert books.missed_beats(["a"], 4, since=100, until=120) == 3
