"""What an agent refuses: bytes, metadata and evidence of an attacker, and what its owner does not allow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fleetwright.v1 import work_pb2

from agent_sim.host import FilesRefusedError, FilesUnavailableError, Piece
from agent_sim.protocol.trusted_root import TRUSTED_ROOT, write_root
from tests.support.install_world import archive, release
from tests.unit.agent.install_site import FAILED, INSTALLED, Site, broken
from tests.unit.agent.reporting import Recorder
from tests.unit.verify import evidence_world as world


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    for task in site.tasks:
        task.close()


def swapped(piece: Piece) -> Piece:
    return replace(piece, data=bytes(len(piece.data)))


def longer(piece: Piece) -> Piece:
    return replace(piece, data=piece.data * 40)


def elsewhere(piece: Piece) -> Piece:
    return replace(piece, offset=piece.offset + 1)


def other_total(piece: Piece) -> Piece:
    return replace(piece, total_bytes=piece.total_bytes + 1)


def nothing(piece: Piece) -> Piece:
    return replace(piece, data=b"")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (swapped, "WRONG_BYTES"),
        (longer, "ENDLESS_DATA"),
        (elsewhere, "WRONG_BYTES"),
        (other_total, "WRONG_BYTES"),
        (nothing, "FETCH_FAILED"),
    ],
)
async def test_a_package_that_is_not_the_released_one_is_refused(site: Site, change: Any, code: str) -> None:
    package = site.released()

    def changed(piece: Piece) -> Piece:
        return change(piece) if piece.total_bytes == len(package.content) else piece

    site.files.changed = changed
    result = await site.install(package)
    assert (result.install.status, result.install.reason_code) == (FAILED, code), result.reason
    assert site.versions() == []


async def test_a_package_of_other_bytes_than_the_task_means_is_refused(site: Site) -> None:
    package = site.released()
    result = await site.task().run(package.assignment(package=f"packages/{'0' * 64}"), Recorder())
    assert (result.install.status, result.install.reason_code) == (FAILED, "ANOTHER_PACKAGE")


async def test_a_package_that_is_not_released_is_refused(site: Site) -> None:
    result = await site.install(archive(site.folder))
    assert result.install.reason_code == "NOT_RELEASED"


async def test_a_package_without_a_good_verdict_is_refused(site: Site) -> None:
    package = archive(site.folder)
    release(
        site.files.repository,
        package,
        expires=world.NOW - timedelta(seconds=1),
        verified=world.NOW - world.DAY,
    )
    result = await site.install(package)
    assert result.install.reason_code == "VERDICT_WRONG"
    assert "verdict" not in result.install.verified
    assert "tuf" in result.install.verified


async def test_expired_metadata_is_refused(site: Site) -> None:
    package = site.released()
    site.now = world.NOW + 2 * world.DAY
    assert (await site.install(package)).install.reason_code == "METADATA_EXPIRED"


async def test_metadata_that_was_rolled_back_is_refused_also_by_the_next_process(site: Site) -> None:
    package = site.released("1.0")
    old = dict(site.files.repository.files)
    await site.install(site.released("2.0"))
    site.files.repository.files = old
    assert (await site.install(package)).install.reason_code == "METADATA_ROLLED_BACK"


async def test_a_clock_that_was_turned_back_is_refused(site: Site) -> None:
    package = site.released()
    await site.install(package)
    site.now -= timedelta(hours=1)
    assert (await site.install(package)).install.reason_code == "CLOCK_TURNED_BACK"


def endless(repository: world.Repository) -> None:
    repository.files["timestamp.json"] += b" " * 20_000


def unsigned(repository: world.Repository) -> None:
    stamp = json.loads(repository.files["timestamp.json"])
    stamp["signatures"] = []
    repository.files["timestamp.json"] = json.dumps(stamp).encode()


def mixed(repository: world.Repository) -> None:
    newest = repository.state.versions["snapshot"]
    repository.files[f"{newest}.snapshot.json"] = repository.files[f"{newest - 1}.snapshot.json"]


def garbage(repository: world.Repository) -> None:
    repository.files["timestamp.json"] = b"[" * 9_000


def withheld(repository: world.Repository) -> None:
    del repository.files["timestamp.json"]


@pytest.mark.parametrize(
    ("attack", "code"),
    [
        (endless, "ENDLESS_DATA"),
        (unsigned, "TOO_FEW_SIGNATURES"),
        (mixed, "METADATA_MIXED"),
        (garbage, "METADATA_MALFORMED"),
        (withheld, "FILE_MISSING"),
    ],
)
async def test_metadata_of_an_attacker_is_refused_under_its_own_word(
    site: Site, attack: Any, code: str
) -> None:
    first = site.released("1.0")
    second = site.released("2.0")
    attack(site.files.repository)
    result = await site.install(second)
    assert (result.install.status, result.install.reason_code) == (FAILED, code), result.reason
    assert first.sha256 not in [sha256 for sha256, _ in site.files.asked]
    assert site.versions() == []


async def test_a_server_that_gives_no_metadata_is_reported_with_its_words(site: Site) -> None:
    package = site.released()
    site.files.failing["timestamp.json"] = FilesRefusedError("timestamp.json: TRUST_NOT_SET_UP: no keys")
    result = await site.install(package)
    assert result.install.reason_code == "FETCH_FAILED"
    assert "TRUST_NOT_SET_UP" in result.reason
    site.files.failing["timestamp.json"] = FilesUnavailableError("timestamp.json: busy")
    assert (await site.install(package)).install.reason_code == "FETCH_FAILED"


@pytest.mark.parametrize(
    ("rules", "code", "words"),
    [
        ({"channels": ("beta",)}, "CHANNEL_NOT_ALLOWED", "policy install.channels: 'stable'"),
        ({"trusted_root": Path("/nowhere/root.json")}, "NO_TRUSTED_ROOT", "policy install.trusted_root"),
        ({"max_bytes": 10}, "TOO_LARGE", "policy limits.package_bytes"),
        ({"prefix": None}, "TYPE_NOT_ALLOWED", "policy install.prefix: not set"),
    ],
)
async def test_what_the_policy_does_not_allow_is_refused(
    site: Site, rules: Any, code: str, words: str
) -> None:
    site.rules = replace(site.rules, **rules)
    result = await site.install(site.released())
    assert result.outcome == work_pb2.OUTCOME_REFUSED
    assert (result.install.status, result.install.reason_code) == (FAILED, code)
    assert words in result.reason


async def test_a_package_command_does_not_run_where_the_policy_names_nobody_for_it(site: Site) -> None:
    site.rules = replace(site.rules, commands_as="")
    result = await site.install(site.released(**broken("1.0")))
    assert (result.outcome, result.install.reason_code) == (work_pb2.OUTCOME_REFUSED, "COMMAND_NOT_ALLOWED")
    assert site.versions() == []


async def test_a_root_that_others_can_change_is_not_trusted(site: Site) -> None:
    assert site.rules.trusted_root is not None
    site.rules.trusted_root.chmod(0o666)
    result = await site.install(site.released())
    assert (result.outcome, result.install.reason_code) == (work_pb2.OUTCOME_REFUSED, "NO_TRUSTED_ROOT")


async def test_a_prefix_that_others_can_change_is_not_used(site: Site) -> None:
    site.prefix.mkdir()
    site.prefix.chmod(0o777)
    result = await site.install(site.released())
    assert (result.install.status, result.install.reason_code) == (FAILED, "PREFIX_UNUSABLE")


async def test_a_command_of_another_package_is_not_taken(site: Site) -> None:
    (site.prefix / "bin").mkdir(parents=True)
    (site.prefix / "bin" / "tool").write_text("mine")
    result = await site.install(site.released())
    assert result.install.reason_code == "COMMAND_TAKEN"
    assert (site.prefix / "bin" / "tool").read_text() == "mine"


async def test_a_package_for_another_platform_is_not_installed(site: Site) -> None:
    package = site.released(platforms=[{"os": "plan9", "architecture": "any"}])
    result = await site.install(package)
    assert (result.install.status, result.install.reason_code) == (FAILED, "PLATFORM_UNSUPPORTED")
    assert "plan9/any" in result.reason


async def test_without_a_root_of_the_owners_the_one_that_came_at_enrolment_counts(site: Site) -> None:
    site.rules = replace(site.rules, trusted_root=None)
    site.state.mkdir()
    write_root(site.state, world.ceremony().online.trusted_root)
    assert (await site.install(site.released())).install.status == INSTALLED
    (site.state / TRUSTED_ROOT).chmod(0o620)
    result = await site.install(site.released("2.0"))
    assert result.install.reason_code == "NO_TRUSTED_ROOT"


async def test_a_host_that_got_no_root_says_what_to_do(site: Site) -> None:
    site.rules = replace(site.rules, trusted_root=None)
    result = await site.install(site.released())
    assert (result.outcome, result.install.reason_code) == (work_pb2.OUTCOME_REFUSED, "NO_TRUSTED_ROOT")
    for words in ("was enrolled when its server had none", "fleetwright trust init", "enroll --force"):
        assert words in result.reason
