"""The policy file: strict to read, safe by default."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from agent_sim.agent.policy import (
    PolicyError,
    default_policy,
    load_policy,
    parse_policy,
    write_default_policy,
)

MINIMAL = 'task_kinds = ["echo"]\n'
INSTALL = '[install]\ntrusted_root = "/etc/root.json"\n'


def test_the_default_allows_what_a_careful_operator_expects() -> None:
    policy = parse_policy(default_policy(), "default")
    assert set(policy.task_kinds) == {"inventory", "logs", "script", "echo"}
    assert policy.script.users == ("@agent",)
    assert "sh" in policy.script.interpreters
    assert policy.logs.paths == ("/var/log/**",)
    assert policy.limits.script_time_seconds == 3600


def test_what_a_policy_leaves_out_is_forbidden() -> None:
    policy = parse_policy(MINIMAL, "file")
    assert policy.script.interpreters == {}
    assert policy.script.users == ()
    assert policy.logs.paths == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["task_kinds", "must be set"]),
        (MINIMAL + "[limts]\noutput_bytes = 1\n", ["limts", "unknown key"]),
        (MINIMAL + "[limits]\noutput_byts = 1\n", ["limits.output_byts", "unknown key"]),
        ('task_kinds = ["reboot"]\n', ["task_kinds.0", "'reboot'", "inventory"]),
        (MINIMAL + '[limits]\noutput_bytes = "1"\n', ["limits.output_bytes", "'1'", "integer"]),
        (MINIMAL + "[limits]\nscript_time_seconds = 0\n", ["limits.script_time_seconds", "1"]),
        (MINIMAL + '[script.interpreters]\nsh = "bin/sh"\n', ["script.interpreters.sh", "absolute"]),
        (MINIMAL + '[logs]\npaths = ["/var/log/../etc/*"]\n', ["logs.paths.0", "'..'"]),
        (MINIMAL + '[logs]\npaths = ["/var/log/x**"]\n', ["logs.paths.0", "stand alone"]),
        ('task_kinds = ["install"]\n', ["task_kinds", "add a section [install]", "channels"]),
        (MINIMAL + '[install]\ntrusted_root = "root.json"\n', ["install.trusted_root", "absolute"]),
        (MINIMAL + INSTALL + 'channels = ["Stable"]\n', ["install.channels.0", "Stable"]),
        (MINIMAL + INSTALL + "prefx = 1\n", ["install.prefx", "unknown key"]),
        (MINIMAL + INSTALL + 'dpkg = "yes"\n', ["install.dpkg", "'yes'"]),
        ("task_kinds = [", ["not TOML"]),
        (MINIMAL + "task_kinds = 2020-01-01\n", ["not TOML"]),
    ],
)
def test_an_error_names_file_key_and_remedy(text: str, words: list[str]) -> None:
    with pytest.raises(PolicyError) as error:
        parse_policy(text, "/etc/policy.toml")
    for word in ["/etc/policy.toml", *words]:
        assert word in str(error.value)


def test_packages_are_installed_only_where_the_kind_is_listed() -> None:
    assert parse_policy(default_policy(), "default").install_rules() is None
    assert parse_policy(MINIMAL + INSTALL, "file").install_rules() is None
    rules = parse_policy('task_kinds = ["install"]\n' + INSTALL, "file").install_rules()
    assert rules is not None
    assert (rules.trusted_root, rules.channels, rules.prefix) == (Path("/etc/root.json"), (), None)
    assert (rules.dpkg, rules.commands_as) == (False, "")
    bare = parse_policy('task_kinds = ["install"]\n[install]\n', "file").install_rules()
    assert bare is not None
    assert bare.trusted_root is None


def test_the_section_that_the_default_shows_is_one_that_can_be_used() -> None:
    shown = default_policy().replace('"echo"]', '"echo", "install"]')
    lines = shown.splitlines()
    start = lines.index("# [install]")
    for number in range(start, lines.index("[limits]")):
        words = lines[number].removeprefix("# ")
        if words == "[install]" or re.match(r"[a-z_]+ = ", words):
            lines[number] = words
    rules = parse_policy("\n".join(lines), "default").install_rules()
    assert rules is not None
    assert rules.channels == ("stable",)
    assert rules.prefix == Path("/opt/fleetwright-packages")


def test_the_default_is_written_once_and_closed_to_others(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    assert write_default_policy(path)
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text(MINIMAL)
    assert not write_default_policy(path)
    assert path.read_text() == MINIMAL
    assert load_policy(path, uid=os.geteuid()).task_kinds == ("echo",)


@pytest.mark.parametrize("mode", [0o602, 0o620])
def test_a_policy_that_others_can_write_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(MINIMAL)
    path.chmod(mode)
    with pytest.raises(PolicyError, match="chmod go-w"):
        load_policy(path, uid=os.geteuid())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_policy_of_another_user_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(MINIMAL)
    os.chown(path, 12345, -1)
    with pytest.raises(PolicyError, match=r"uid 12345.*chown 0"):
        load_policy(path, uid=0)


def test_a_missing_policy_allows_nothing(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="no policy file"):
        load_policy(tmp_path / "policy.toml", uid=os.geteuid())


def test_a_policy_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(b"\xff\xfe")
    path.chmod(0o600)
    with pytest.raises(PolicyError, match="UTF-8"):
        load_policy(path, uid=os.geteuid())
