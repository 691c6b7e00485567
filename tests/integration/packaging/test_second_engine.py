"""Trivy as the second engine: run in isolation over our own advisories, and never a pass by its silence."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from controlplane.packaging.advisories.engines.records import Asking, EngineError, Question
from controlplane.packaging.advisories.matching import Outcome, judge
from controlplane.packaging.advisories.records import Affected, Event, Range
from controlplane.packaging.isolation.records import IsolationSettings
from controlplane.packaging.judging import TrivyEngine
from controlplane.packaging.sbom.external import find_program

FOO = Question("PyPI", "foo", "0.9")
NEWER = Question("PyPI", "foo", "1.1")
BASH = Question("AlmaLinux:8", "bash", "1:4.4.19-2.el8")
MODULE = Question("AlmaLinux:8", "npm", "1:6.1-1.module_el8.1")
OPENSSL = Question("Debian:12", "openssl", "3.0.9-1")
SCOPED = Question("npm", "@scope/name", "1.2.3")
LOG = Question("Maven", "org.Example:Log", "2.0-rc1")
GO = Question("Go", "github.com/foo/bar", "v1.2.3")


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def resolved(name: str) -> Path:
    found = shutil.which(name)
    assert found
    return Path(found).resolve()


def block(question: Question, *events: str, versions: tuple[str, ...] = ()) -> list[Affected]:
    pairs = [Event(*one.split(" ")) for one in events]
    ranges = [Range("ECOSYSTEM", pairs)] if pairs else []
    return [Affected(question.ecosystem, question.name, ranges=ranges, versions=versions)]


def engine(program: Path, folder: Path, sha256: str = "") -> TrivyEngine:
    (folder / "own").mkdir(exist_ok=True)
    isolation = IsolationSettings(folder / "scratch")
    return TrivyEngine(program, sha256 or sha256_of(program), isolation, folder / "own")


@pytest.fixture(scope="module")
def trivy() -> Path:
    folders = os.environ.get("FLEETWRIGHT_TEST_TOOLS", "").split(os.pathsep)
    program = find_program("trivy", [Path(folder) for folder in folders if folder])
    if program is None:
        pytest.skip("trivy is not installed in a folder of FLEETWRIGHT_TEST_TOOLS")
    return program.resolve()


async def test_it_judges_every_kind_that_it_is_asked_about(trivy: Path, tmp_path: Path) -> None:
    from_the_first = ("introduced 0", "fixed 1.0")
    of_foo = [
        ("X-1", block(FOO, *from_the_first)),
        ("X-2", block(FOO, versions=("0.9",))),
        ("X-3", block(FOO, versions=("0.8",))),
        ("X-4", block(FOO, "introduced 0")),
        ("X-5", block(FOO, "introduced 0.5", "last_affected 0.9")),
    ]
    known = {
        FOO: of_foo,
        NEWER: of_foo,
        BASH: [
            ("ALSA-1", block(BASH, "introduced 0", "fixed 1:4.4.19-3.el8")),
            ("ALSA-2", block(BASH, "introduced 0", "fixed 4.4.20-1.el8")),
            ("ALSA-3", block(BASH, "introduced 1.0", "fixed 9.0")),
        ],
        MODULE: [("ALSA-1", block(MODULE, "introduced 0", "fixed 9.0"))],
        OPENSSL: [
            ("DSA-1", block(OPENSSL, "introduced 0", "fixed 3.0.9-1+deb12u1")),
            ("DSA-2", block(OPENSSL, "introduced 0", "fixed 3.0.9-1~deb12u1")),
            ("DSA-3", block(OPENSSL, "introduced 0")),
        ],
        SCOPED: [("N-1", block(SCOPED, "introduced 1.2.3-beta", "fixed 1.2.4"))],
        LOG: [("M-1", block(LOG, "introduced 2.0-beta9", "fixed 2.0"))],
        GO: [("GO-1", block(GO, "introduced 0", "fixed 1.2.3"))],
        Question("npm", "quiet", "1.0.0"): [],
    }
    answers = await engine(trivy, tmp_path).judge(Asking((), known))
    assert answers.said == {
        FOO: {"X-1": True, "X-2": True, "X-3": False, "X-4": True, "X-5": True},
        NEWER: {"X-1": False, "X-2": False, "X-3": False, "X-4": True, "X-5": False},
        BASH: {"ALSA-1": True, "ALSA-2": False},
        OPENSSL: {"DSA-1": True, "DSA-2": False, "DSA-3": True},
        SCOPED: {"N-1": True},
        LOG: {"M-1": True},
        GO: {"GO-1": False},
    }
    assert (answers.judged, answers.asked) == (18, 20)
    assert f"(sha256:{sha256_of(trivy)})" in answers.version
    assert not list((tmp_path / "own").iterdir())


async def test_it_takes_a_local_version_of_python_for_the_public_one(trivy: Path, tmp_path: Path) -> None:
    local = Question("PyPI", "foo", "1.0+local.1")
    blocks = block(local, "introduced 0", "last_affected 1.0", versions=("1.0",))
    assert judge("PyPI", local.version, blocks).outcome is Outcome.NOT_AFFECTED
    answers = await engine(trivy, tmp_path).judge(Asking((), {local: [("X-1", blocks)]}))
    assert answers.of(local, "X-1") is True


async def test_it_does_not_know_the_caret_of_rpm(trivy: Path, tmp_path: Path) -> None:
    snapshot = Question("AlmaLinux:9", "foo", "1.0-1.el9^1")
    blocks = block(snapshot, "introduced 0", "fixed 1.0-1.el9.1")
    assert judge("AlmaLinux:9", snapshot.version, blocks).outcome is Outcome.AFFECTED
    answers = await engine(trivy, tmp_path).judge(Asking((), {snapshot: [("X-1", blocks)]}))
    assert answers.of(snapshot, "X-1") is False


async def test_what_it_cannot_compare_it_has_not_judged(trivy: Path, tmp_path: Path) -> None:
    odd = Question("PyPI", "foo", "not-a-version!")
    known = {odd: [("X-1", block(odd, "introduced 0", "fixed 1.0"))]}
    answers = await engine(trivy, tmp_path).judge(Asking((), known))
    assert answers.said == {odd: {}}


async def test_another_program_than_the_pinned_one_fails_the_scan(tmp_path: Path) -> None:
    program = shutil.which("true")
    assert program
    with pytest.raises(EngineError, match=r"trivy: .*digest|pinned"):
        await engine(Path(program), tmp_path, "0" * 64).judge(Asking((), {}))


async def test_a_program_that_is_not_there_fails_the_scan(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"trivy: .*nowhere"):
        await engine(tmp_path / "nowhere", tmp_path, "0" * 64).judge(Asking((), {}))


@pytest.mark.parametrize(
    ("name", "said"), [("true", "its answer is none"), ("false", "status 1"), ("echo", "")]
)
async def test_a_program_that_says_nothing_of_use_fails_the_scan(
    name: str, said: str, tmp_path: Path
) -> None:
    program = resolved(name)
    known = {FOO: [("X-1", block(FOO, "introduced 0", "fixed 1.0"))]}
    with pytest.raises(EngineError, match=f"trivy: .*{said}"):
        await engine(program, tmp_path).judge(Asking((), known))
