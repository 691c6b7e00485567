"""Foreign programs: the pinned bytes, and no more reach than a job has."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from controlplane.packaging.isolation.external import run_program
from controlplane.packaging.isolation.records import (
    FailureKind,
    IsolationFailed,
    IsolationLimits,
    IsolationSettings,
    Program,
    ProgramOutcome,
)
from tests.unit.packaging.isolation.attempts import SMALL
from tests.unit.packaging.isolation.test_isolation_reach import processes_called


def found(name: str) -> Path:
    path = shutil.which(name, path="/usr/bin:/bin")
    if path is None:
        pytest.skip(f"{name} is not installed here")
    return Path(path).resolve()


def pinned(path: Path, *arguments: str, **more: Any) -> Program:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return Program(path, sha256, arguments, **more)


def commands_of(name: str) -> list[bytes]:
    return [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in processes_called(name)]


async def shell(
    settings: IsolationSettings, script: str, limits: IsolationLimits = SMALL, **more: Any
) -> ProgramOutcome:
    return await run_program(pinned(found("dash"), "-c", script, **more), limits, settings=settings)


async def test_a_program_gets_its_arguments_as_they_are(settings: IsolationSettings) -> None:
    given = ("%s|", "a b", "$HOME", "*", "; exit 3", "ü")
    outcome = await run_program(pinned(found("printf"), *given), SMALL, settings=settings)
    assert outcome.stdout.decode() == "".join(f"{part}|" for part in given[1:])
    assert outcome.status == 0


async def test_status_and_both_outputs_are_known(settings: IsolationSettings) -> None:
    outcome = await shell(settings, "echo out; echo err >&2; exit 3")
    assert (outcome.status, outcome.stdout, outcome.stderr) == (3, b"out\n", "err")


async def test_a_program_has_only_the_variables_that_it_is_given(settings: IsolationSettings) -> None:
    outcome = await run_program(
        pinned(found("env"), environment={"SOURCE_DATE_EPOCH": "0"}), SMALL, settings=settings
    )
    names = {line.split("=")[0] for line in outcome.stdout.decode().splitlines()}
    assert names == {"HOME", "TMPDIR", "LC_ALL", "SOURCE_DATE_EPOCH"}


async def test_a_program_reads_inputs_and_leaves_outputs(settings: IsolationSettings, tmp_path: Path) -> None:
    (tmp_path / "it").write_text("of the server", encoding="utf-8")
    more: dict[str, Any] = {"inputs": {"it": tmp_path / "it"}, "outputs": tmp_path / "result"}
    await shell(settings, 'while read -r line; do :; done < in/it; echo "$line" > out/made', **more)
    assert (tmp_path / "result" / "made").read_text(encoding="utf-8") == "of the server\n"


async def test_a_program_that_fails_leaves_no_outputs(settings: IsolationSettings, tmp_path: Path) -> None:
    await shell(settings, "echo x > out/made; exit 1", outputs=tmp_path / "result")
    assert not (tmp_path / "result").exists()


async def test_a_program_is_no_more_trusted_than_a_job(settings: IsolationSettings) -> None:
    outcome = await shell(settings, "ulimit -a; echo x > /tmp/attack")
    facts = {fact.name.value: fact.held for fact in outcome.facts}
    assert all(facts[name] for name in ("network", "memory", "cpu", "files", "no_new_privs", "capabilities"))


async def test_what_a_program_starts_ends_with_it(settings: IsolationSettings) -> None:
    await shell(settings, f"{found('sleep')} 1000 & {found('sleep')} 1001 & :")
    assert not [line for line in commands_of("sleep") if line.endswith((b"1000\0", b"1001\0"))]


async def test_another_executable_than_the_pinned_one_is_not_started(
    settings: IsolationSettings, tmp_path: Path
) -> None:
    tool = tmp_path / "tool"
    shutil.copy(found("true"), tool)
    program = pinned(tool)
    with tool.open("ab") as file:
        file.write(b"trojan")
    with pytest.raises(IsolationFailed, match="pinned is") as caught:
        await run_program(program, SMALL, settings=settings)
    assert caught.value.kind is FailureKind.NOT_ALLOWED


async def test_a_program_may_stand_anywhere(settings: IsolationSettings, tmp_path: Path) -> None:
    shutil.copy(found("printf"), tmp_path / "tool")
    outcome = await run_program(pinned(tmp_path / "tool", "here"), SMALL, settings=settings)
    assert outcome.stdout == b"here"


def written(path: Path, content: bytes, mode: int = 0o755) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        (b"#!/bin/sh\n", 0o755, "is a script"),
        (b"\x7fELF", 0o644, "is not an executable file"),
        (b"\x7fELF", 0o777, "can be written by others"),
        (b"", 0o755, "is a script"),
    ],
)
async def test_what_is_no_program_is_refused(
    settings: IsolationSettings, tmp_path: Path, content: bytes, mode: int, message: str
) -> None:
    program = pinned(written(tmp_path / "tool", content, mode))
    with pytest.raises(IsolationFailed, match=message) as caught:
        await run_program(program, SMALL, settings=settings)
    assert caught.value.kind is FailureKind.NOT_ALLOWED


async def test_a_broken_executable_is_not_started(settings: IsolationSettings, tmp_path: Path) -> None:
    program = pinned(written(tmp_path / "tool", b"\x7fELF and no more"))
    with pytest.raises(IsolationFailed, match="could not be begun: Exec format error") as caught:
        await run_program(program, SMALL, settings=settings)
    assert caught.value.kind is FailureKind.NOT_STARTED


@pytest.mark.parametrize(
    ("path", "message"),
    [("dash", "no PATH is searched"), ("/nowhere/tool", "cannot be opened"), ("/usr", "is not an")],
)
async def test_a_program_is_named_by_its_path(settings: IsolationSettings, path: str, message: str) -> None:
    with pytest.raises(IsolationFailed, match=message):
        await run_program(Program(Path(path), "0" * 64), SMALL, settings=settings)


async def test_a_program_that_writes_without_end_is_cut_off(settings: IsolationSettings) -> None:
    with pytest.raises(IsolationFailed) as caught:
        await run_program(pinned(found("yes")), SMALL, settings=settings)
    assert caught.value.kind is FailureKind.TOO_MUCH_OUTPUT


async def test_a_program_that_writes_a_huge_file_is_ended(settings: IsolationSettings) -> None:
    program = pinned(found("dd"), "if=/dev/zero", "of=out/large", "bs=1048576", "count=64")
    with pytest.raises(IsolationFailed, match="limit of one file"):
        await run_program(program, SMALL, settings=settings)


async def test_a_program_that_hangs_is_ended(settings: IsolationSettings) -> None:
    limits = replace(SMALL, wall=timedelta(seconds=0.5))
    with pytest.raises(IsolationFailed) as caught:
        await shell(settings, "trap '' TERM INT HUP; while :; do read -r x < /dev/zero; done", limits)
    assert caught.value.kind in (FailureKind.TIMEOUT, FailureKind.MEMORY)


async def test_dpkg_deb_reads_what_it_built(settings: IsolationSettings, tmp_path: Path) -> None:
    tool = found("dpkg-deb")
    control = tmp_path / "tree" / "DEBIAN"
    control.mkdir(parents=True, mode=0o755)
    (control / "control").write_text(
        "Package: tool\nVersion: 1\nArchitecture: all\nMaintainer: us <us@example.org>\nDescription: it\n",
        encoding="utf-8",
    )
    # Compressing asks for memory by what the machine has.
    limits = replace(SMALL, memory_bytes=2 << 30)
    inputs = {"tree": tmp_path / "tree"}
    built = pinned(tool, "--build", "in/tree", "out/it.deb", inputs=inputs, outputs=tmp_path / "made")
    assert (await run_program(built, limits, settings=settings)).status == 0
    read = pinned(tool, "--field", "in/it.deb", "Package", inputs={"it.deb": tmp_path / "made" / "it.deb"})
    assert (await run_program(read, limits, settings=settings)).stdout == b"tool\n"


def test_the_tests_leave_nothing_where_all_can_write() -> None:
    assert not os.path.exists("/tmp/attack")
