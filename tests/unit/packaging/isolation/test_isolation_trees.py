"""Folders are measured and removed whatever stands in them, and log lines cut wherever they come apart."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.packaging.isolation import trees
from controlplane.packaging.isolation.confinement import limits as resource_limits
from controlplane.packaging.isolation.logs import LogLines
from controlplane.packaging.isolation.protocol import (
    Order,
    Report,
    order_line,
    read_order,
    read_report,
    report_line,
)
from controlplane.packaging.isolation.records import (
    Fact,
    FactName,
    FailureKind,
    IsolationLimits,
    Usage,
)


def dig(folder: Path, depth: int) -> None:
    """Make folders below each other, deeper than a path can name."""
    back = os.open(".", os.O_RDONLY)
    try:
        os.chdir(folder)
        for _ in range(depth):
            os.mkdir("d" * 50)
            os.chdir("d" * 50)
        Path("file").touch()
    finally:
        os.fchdir(back)
        os.close(back)


def test_folders_deeper_than_any_path_are_removed(tmp_path: Path) -> None:
    (tmp_path / "top").mkdir()
    dig(tmp_path / "top", 2_000)
    trees.remove(tmp_path / "top")
    assert list(tmp_path.iterdir()) == []


def test_folders_deeper_than_any_path_are_too_many_to_count(tmp_path: Path) -> None:
    (tmp_path / "top").mkdir()
    dig(tmp_path / "top", 200)
    assert trees.measure(tmp_path / "top", 1_000, settled=True)[1] > 1_000
    trees.remove(tmp_path / "top")


def test_a_link_is_removed_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / "top" / "a").mkdir(parents=True)
    (tmp_path / "top" / "a" / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "top" / ".1").mkdir()
    trees.remove(tmp_path / "top")
    assert (tmp_path / "kept" / "file").exists()
    assert not (tmp_path / "top").exists()


def test_a_folder_that_became_a_link_is_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir(mode=0o750)
    (tmp_path / "keys" / "key").touch(mode=0o600)
    (tmp_path / "out").symlink_to(tmp_path / "keys")
    with pytest.raises(trees.UnfitTree, match="was replaced"):
        trees.take(tmp_path / "out", tmp_path / "target")
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "keys" / "key").stat().st_mode & 0o777 == 0o600


def test_what_is_gone_already_is_removed(tmp_path: Path) -> None:
    trees.remove(tmp_path / "nothing")


def test_a_link_is_measured_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(1 << 20))
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "link").symlink_to(tmp_path)
    size, count = trees.measure(tmp_path / "top", 100, settled=True)
    assert (size < 1 << 20, count) == (True, 1)


def test_counting_stops_beyond_the_limit(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / str(number)).touch()
    assert trees.measure(tmp_path, 10, settled=False)[1] == 11


names = st.sampled_from(["a", "b", ".1", ".2", ".1.x"])


@given(st.lists(st.lists(names, min_size=1, max_size=6), max_size=20))
def test_every_tree_is_removed(tmp_path_factory: pytest.TempPathFactory, paths: list[list[str]]) -> None:
    top = tmp_path_factory.mktemp("trees") / "top"
    for path in paths:
        top.joinpath(*path).mkdir(parents=True, exist_ok=True)
        top.joinpath(*path, "file").touch()
    trees.remove(top)
    assert not top.exists()


@given(st.text(alphabet="ab\n\x1bü", max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_lines_are_the_same_however_they_come_apart(text: str, cuts: list[int]) -> None:
    few = replace(IsolationLimits(), log_lines=5, log_line_chars=8)
    told: list[str] = []
    whole, parts = LogLines(few, told.append), LogLines(few, None)
    data = text.encode()
    whole.feed(data)
    edges = [0, *sorted(cuts), len(data)]
    for begin, end in pairwise(edges):
        parts.feed(data[begin:end])
    whole.close()
    parts.close()
    assert whole.lines == parts.lines == told
    assert all(len(line) <= 8 or line.startswith("(") for line in told)
    assert len(told) <= 6
    assert not any("\x1b" in line for line in told)


def test_an_order_is_read_as_it_was_given() -> None:
    order = Order(
        "/scratch", 1, 2, IsolationLimits(wall=timedelta(milliseconds=1500)), ("uid",), "a:b", {"x": [1]}
    )
    line = order_line(order)
    assert line.count(b"\n") == 1
    assert read_order(line) == replace(order, require=["uid"], argv=[])


@pytest.mark.parametrize("failure", [None, *FailureKind])
def test_a_report_is_read_as_it_was_written(failure: FailureKind | None) -> None:
    facts = (Fact(FactName.UID, True, "a\nb"), Fact(FactName.CPU, False, ""))
    report = Report(facts, Usage(timedelta(seconds=1.5), timedelta(), 7), -9, failure, "what")
    assert read_report(report_line(report).rstrip(b"\n")) == report


@given(st.binary(max_size=100))
def test_what_is_no_report_is_an_error_of_ours(line: bytes) -> None:
    with pytest.raises(ValueError, match="no report"):
        read_report(line)


def test_processes_of_a_user_are_counted() -> None:
    assert resource_limits.tasks_of(os.getuid()) >= 1
    assert resource_limits.tasks_of(4_000_000_000) == 0
