"""The Dockerfile as it is written, and the machinery that runs it without an engine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from controlplane import VERSION
from controlplane.settings import Settings
from tests.deploy.dockerfile import Dockerfile, Ignored, context_files, expand, parse

ROOT = Path(__file__).parents[2]
FILE = parse((ROOT / "Dockerfile").read_text())
TARGETS = ("server", "agent")


def needed(name: str, kind: str, dockerfile: Dockerfile = FILE) -> list[str]:
    step = dockerfile.setting(name, kind)
    assert step is not None, f"{name} has no {kind}"
    return step.words


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    ended = subprocess.run([hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "")


def test_hadolint_would_find_something() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    ended = subprocess.run(
        [hadolint, "-"], input="FROM debian\n", capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "DL3006" in ended.stdout


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_is_not_roots_and_is_stopped_by_sigterm(target: str) -> None:
    (user,) = needed(target, "USER")
    number, _, group = user.partition(":")
    assert (int(number), int(group)) > (1000, 1000)
    assert needed(target, "STOPSIGNAL") == ["SIGTERM"]
    for kind in ("ENTRYPOINT", "CMD", "HEALTHCHECK"):
        assert needed(target, kind)


def test_the_server_is_what_is_built_without_a_target() -> None:
    assert FILE.stages[-1].name == "server"


def test_every_stage_comes_from_the_one_base_of_the_oldest_python_that_is_supported() -> None:
    foreign = {stage.base for stage in FILE.stages} - {stage.name for stage in FILE.stages}
    assert foreign == {"python:3.11-slim-bookworm"}


def test_the_server_exposes_the_ports_of_the_settings_but_not_the_one_that_is_not_authenticated() -> None:
    settings = Settings(_env_file=None)  # type: ignore[call-arg]  # pydantic-settings' own
    ports = {settings.agents_port, settings.admin_port, settings.enrollment_port}
    assert {int(port) for port in needed("server", "EXPOSE")} == ports
    assert str(settings.health_port) in needed("server", "HEALTHCHECK")[-1]


def test_the_server_keeps_its_data_in_the_volume() -> None:
    environment = next(step for step in FILE.stage("server").steps if step.name == "ENV")
    assert environment.text == f"FLEETWRIGHT_DATA_DIR={needed('server', 'VOLUME')[0]}"


def test_the_version_is_that_of_the_program() -> None:
    assert f"VERSION={VERSION}" in [step.text for step in FILE.stage("runtime").steps if step.name == "ARG"]


def test_the_context_has_what_is_installed_and_no_secret(tmp_path: Path) -> None:
    context = tmp_path / "context"
    for name in (
        *(".dockerignore", "README.md", "pyproject.toml", "requirements/runtime.txt", "scripts/wheels"),
        *("controlplane/cli/main.py", "proto/python/fleetwright/client.py", "proto/python/pyproject.toml"),
    ):
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        (context / name).write_bytes((ROOT / name).read_bytes())
    wanted = context_files(context)
    for name in (
        *(
            "site/trust/agents-root.key",
            "site/fleetwright.db",
            "join-token",
            ".git/config",
            ".venv/bin/python",
        ),
        *(
            "controlplane/trust/a.key",
            "certs/x/y.pem",
            "bench/z.db",
            "agent_sim/__pycache__/a.pyc",
            "proto/x",
        ),
        *("agent/key.pem", "tests/test_a.py", "scripts/lock", "Dockerfile"),
    ):
        (context / name).parent.mkdir(parents=True, exist_ok=True)
        (context / name).write_text("secret")
    assert context_files(context) == wanted
    assert len(wanted) == 7


def test_the_context_of_this_checkout_has_no_key() -> None:
    found = context_files(ROOT)
    assert {"pyproject.toml", "controlplane/bootstrap/server.py", "scripts/wheels"} <= set(found)
    assert {path.split("/")[0] for path in found}.isdisjoint({".git", ".venv", "tests", "site", "agent"})
    assert [path for path in found if path.endswith((".key", ".pem", ".db"))] == []


@pytest.mark.parametrize(
    ("path", "ignored"),
    [("a", True), ("b", False), ("b/c", False), ("b/c.key", True), ("b/x/c.key", True), ("d/e", True)],
)
def test_of_the_lines_that_match_the_last_decides(path: str, ignored: bool) -> None:
    assert Ignored("# what\n*\n!b\n**/*.key\n")(path) is ignored


def test_variables_stages_and_continued_lines_are_read() -> None:
    read = parse('ARG A=x\n# no\nFROM ${A}:1 AS one\nRUN a \\\n  && b\nFROM one\nCMD ["c d", "e"]\n')
    assert [(stage.name, stage.base) for stage in read.stages] == [("one", "x:1"), ("1", "one")]
    assert read.stage("one").steps[0].text.split() == ["a", "&&", "b"]
    assert needed("1", "CMD", read) == ["c d", "e"]
    assert expand("$B-${C}", {"B": "b"}) == "b-"


def test_an_instruction_that_is_not_known_is_no_silence() -> None:
    with pytest.raises(ValueError, match="'ONBUILD' is not known"):
        parse("FROM a\nONBUILD RUN b\n")
