"""What an agent does before it installs: fetch the evidence by its own client, and judge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fleetwright.verify.errors import FetchFailed, NotFound, UnknownTarget, WrongTarget
from fleetwright.verify.evidence import attestations_path, fetch, judge
from fleetwright.verify.reports import Outcome, Report
from fleetwright.verify.tuf_client import Release

from controlplane.trust.tuf.publishing import revoke
from tests.unit.verify.evidence_world import (
    DAY,
    EXPIRIES,
    NOW,
    PACKAGE,
    PATH,
    Repository,
    attested,
    ceremony,
    client,
    parts,
    repository,
    sha,
)


@pytest.fixture
def repo() -> Repository:
    return repository()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    path = tmp_path / "package"
    path.write_bytes(PACKAGE)
    return path


def judged(repo: Repository, tmp_path: Path, package: Path) -> Report:
    agent = client(tmp_path / "state", repo)
    return judge(agent, PATH, fetch(agent, PATH, package, tmp_path), NOW)


def test_a_released_package_with_its_evidence_may_be_installed(
    repo: Repository, tmp_path: Path, package: Path
) -> None:
    report = judged(repo, tmp_path, package)
    assert report.ok, str(report)


def test_evidence_is_fetched_with_one_refresh(repo: Repository, tmp_path: Path, package: Path) -> None:
    agent = client(tmp_path / "state", repo)
    fetch(agent, PATH, package, tmp_path)
    assert repo.asked.count("timestamp.json") == 1
    judge(agent, PATH, parts(), NOW)
    assert repo.asked.count("timestamp.json") == 2
    assert repo.asked.count("2.stable.json") == 1


def test_a_package_that_was_swapped_after_it_was_fetched_is_refused(
    repo: Repository, tmp_path: Path, package: Path
) -> None:
    package.write_bytes(PACKAGE[::-1])
    report = judged(repo, tmp_path, package)
    assert report["release"].outcome is Outcome.WRONG
    assert report["verdict"].outcome is Outcome.WRONG


def test_a_package_that_is_not_there_is_missing(repo: Repository, tmp_path: Path) -> None:
    report = judged(repo, tmp_path, tmp_path / "none")
    assert report["release"].outcome is Outcome.MISSING
    assert report["verdict"].outcome is Outcome.OK


def test_a_folder_is_no_package(repo: Repository, tmp_path: Path) -> None:
    assert "let this user read it" in judged(repo, tmp_path, tmp_path)["release"].detail


def test_a_package_that_cannot_be_read_to_its_end_is_refused(repo: Repository, tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield PACKAGE[:10]
        raise FetchFailed("the disk is broken")

    report = judge(client(tmp_path, repo), PATH, replace(parts(), package=broken), NOW)
    assert "the disk is broken" in report["release"].detail
    assert not report.ok


def test_attestations_that_were_not_released_are_not_fetched(tmp_path: Path, package: Path) -> None:
    repo = repository()
    keys = ceremony().online.keys
    repo.take(revoke(repo.state, "stable", [attestations_path(PATH)], keys, NOW, EXPIRIES).state)
    with pytest.raises(UnknownTarget):
        judged(repo, tmp_path, package)


def test_attestations_that_the_repository_lost_are_said_so(
    repo: Repository, tmp_path: Path, package: Path
) -> None:
    repo.targets = {name: content for name, content in repo.targets.items() if "jsonl" not in name}
    with pytest.raises(NotFound, match="jsonl"):
        judged(repo, tmp_path, package)


def test_expired_metadata_lets_nothing_be_installed(repo: Repository, tmp_path: Path) -> None:
    report = judge(client(tmp_path, repo, NOW + 3 * DAY), PATH, parts(), NOW + 3 * DAY)
    assert not report.ok
    assert "Expired" in report["tuf"].detail
    assert {check.outcome for check in report.checks} == {Outcome.WRONG}


def test_attestations_of_which_one_was_left_out_are_not_the_released_ones(
    repo: Repository, tmp_path: Path
) -> None:
    lines = attested().lines.splitlines(keepends=True)
    report = judge(client(tmp_path, repo), PATH, parts(lines=b"".join(lines[1:])), NOW)
    assert report["attestations"].outcome is Outcome.WRONG
    assert report["provenance"].outcome is Outcome.MISSING


@pytest.mark.parametrize("content", [b"", PACKAGE[:-1], PACKAGE + b"x", PACKAGE[::-1]])
def test_a_release_is_its_length_and_its_digest(tmp_path: Path, content: bytes) -> None:
    release = Release(PATH, len(PACKAGE), {"sha256": sha(PACKAGE)})
    (tmp_path / "good").write_bytes(PACKAGE)
    release.check_file(tmp_path / "good")
    with pytest.raises(WrongTarget):
        release.check(iter([content]))


def test_a_release_without_a_digest_that_is_known_is_no_release() -> None:
    with pytest.raises(WrongTarget, match="no SHA-256"):
        Release(PATH, len(PACKAGE), {"md5": "0"}).check(iter([PACKAGE]))


def test_a_report_without_checks_lets_nothing_be_installed() -> None:
    assert not Report(()).ok
    with pytest.raises(KeyError):
        Report(())["tuf"]
