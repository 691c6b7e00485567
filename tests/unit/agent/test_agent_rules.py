"""What the host's own policy decides."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_sim.agent.rules import (
    DEFAULT_OUTPUT_BYTES,
    DEFAULT_SCRIPT_TIME,
    RefusedError,
    ScriptRequest,
    ScriptRules,
    agent_id_from,
    busy_ratio,
    check_kind,
    check_log_path,
    grant_log_bytes,
    grant_script,
    path_matches,
)
from agent_sim.protocol.identity import AGENT_ID_PATTERN

RULES = ScriptRules(
    interpreters={"sh": "/bin/sh"},
    users=frozenset({"@agent", "deploy"}),
    denied_environment=("LD_*",),
    max_time=timedelta(hours=1),
    max_output_bytes=4 << 20,
)


def request(**changes: object) -> ScriptRequest:
    fields: dict[str, object] = {
        "interpreter": "sh",
        "arguments": [],
        "environment": {},
        "user": "",
        "time_limit": None,
        "output_limit": 0,
    }
    return ScriptRequest(**{**fields, **changes})  # type: ignore[arg-type] # the names are spelt above


def test_what_a_request_leaves_open_gets_the_contracts_defaults() -> None:
    grant = grant_script(RULES, request(), own_user="agent", may_switch_user=False)
    assert grant.interpreter_path == "/bin/sh"
    assert grant.user is None
    assert grant.time_limit == DEFAULT_SCRIPT_TIME
    assert grant.output_limit == DEFAULT_OUTPUT_BYTES


@pytest.mark.parametrize(
    ("changes", "entry"),
    [
        ({"interpreter": "perl"}, "script.interpreters"),
        ({"user": "root"}, "script.users"),
        ({"time_limit": timedelta(hours=2)}, "limits.script_time_seconds"),
        ({"output_limit": 5 << 20}, "limits.output_bytes"),
        ({"environment": {"LD_PRELOAD": "x"}}, "script.denied_environment"),
        ({"environment": {"A": "a\0b"}}, "script.environment['A']"),
        ({"arguments": ["ok", "a\0b"]}, "script.arguments[1]"),
    ],
)
def test_a_refusal_names_the_entry(changes: dict[str, object], entry: str) -> None:
    with pytest.raises(RefusedError) as refusal:
        grant_script(RULES, request(**changes), own_user="agent", may_switch_user=True)
    assert entry in str(refusal.value)


def test_another_user_needs_root_even_where_the_policy_lists_it() -> None:
    assert grant_script(RULES, request(user="deploy"), own_user="root", may_switch_user=True).user == "deploy"
    with pytest.raises(RefusedError, match="only root"):
        grant_script(RULES, request(user="deploy"), own_user="agent", may_switch_user=False)


def test_a_policy_without_the_agents_own_user_lets_no_script_run_as_it() -> None:
    rules = ScriptRules({"sh": "/bin/sh"}, {"deploy"}, (), timedelta(hours=1), 1)
    for user in ("", "root"):
        with pytest.raises(RefusedError, match=r"script\.users"):
            grant_script(rules, request(user=user), own_user="root", may_switch_user=True)


@given(
    asked=st.none() | st.timedeltas(timedelta(seconds=1), timedelta(days=1)),
    asked_bytes=st.integers(0, 16 << 20),
    limit=st.timedeltas(timedelta(seconds=1), timedelta(days=1)),
    limit_bytes=st.integers(0, 16 << 20),
)
def test_no_request_gets_more_than_the_policy(
    asked: timedelta | None, asked_bytes: int, limit: timedelta, limit_bytes: int
) -> None:
    rules = ScriptRules({"sh": "/bin/sh"}, {"@agent"}, (), limit, limit_bytes)
    wanted = request(time_limit=asked, output_limit=asked_bytes)
    try:
        grant = grant_script(rules, wanted, own_user="agent", may_switch_user=True)
    except RefusedError:
        assert (asked or timedelta(0)) > limit or asked_bytes > limit_bytes
    else:
        assert grant.time_limit <= limit
        assert grant.output_limit <= limit_bytes


def test_a_kind_that_is_unknown_is_told_from_one_that_is_forbidden() -> None:
    check_kind("echo", {"echo"}, {"echo"})
    with pytest.raises(RefusedError, match="does not know"):
        check_kind("reboot", {"echo"}, {"reboot"})
    with pytest.raises(RefusedError, match="does not know"):
        check_kind(None, {"echo"}, {"echo"})
    with pytest.raises(RefusedError, match="policy task_kinds: 'echo'"):
        check_kind("echo", {"echo"}, set())


def test_log_bytes_are_bounded() -> None:
    assert grant_log_bytes(0, 1000) == 1000
    assert grant_log_bytes(10, 1000) == 10
    with pytest.raises(RefusedError, match=r"limits\.log_bytes"):
        grant_log_bytes(1001, 1000)


@pytest.mark.parametrize(
    ("path", "pattern", "matches"),
    [
        ("/var/log/syslog", "/var/log/*", True),
        ("/var/log/apt/history.log", "/var/log/*", False),
        ("/var/log/apt/history.log", "/var/log/**", True),
        ("/var/log/apt/history.log", "/var/log/**/*.log", True),
        ("/var/log/history.log", "/var/log/**/*.log", True),
        ("/var/logs/x", "/var/log/**", False),
        ("/var/log/../../etc/shadow", "/var/log/**", False),
        ("/etc/shadow", "/**", True),
        ("var/log/x", "/**", False),
        ("/srv/a1/log", "/srv/a[0-9]/log", True),
    ],
)
def test_patterns(path: str, pattern: str, matches: bool) -> None:
    assert path_matches(path, pattern) is matches


def test_no_pattern_allows_nothing() -> None:
    with pytest.raises(RefusedError, match=r"logs\.paths"):
        check_log_path("/var/log/syslog", [])


SEGMENTS = st.lists(st.sampled_from(["a", "b", "..", ".", "log", "link", "**", "*", "x.log"]), max_size=6)


@given(SEGMENTS)
def test_no_spelling_of_a_path_escapes_its_folder(segments: list[str]) -> None:
    path = "/".join(["", "base", "log", *segments])
    if path_matches(path, "/base/log/**"):
        normal = os.path.normpath(path)
        assert normal == "/base/log" or normal.startswith("/base/log/")


@given(st.text(max_size=80))
def test_an_id_made_of_a_hostname_fits_the_contract_or_is_empty(hostname: str) -> None:
    made = agent_id_from(hostname)
    assert made == "" or AGENT_ID_PATTERN.fullmatch(made)


@pytest.mark.parametrize(
    ("hostname", "made"),
    [("Web-1.Example.COM", "web-1-example-com"), ("_x_", "x"), ("---", ""), ("a" * 62 + "..b", "a" * 62)],
)
def test_ids_made_of_hostnames(hostname: str, made: str) -> None:
    assert agent_id_from(hostname) == made


def test_waiting_for_a_disk_is_idle_and_guests_are_not_counted_twice() -> None:
    before = {"user": 10.0, "system": 5.0, "idle": 100.0, "iowait": 1.0, "guest": 10.0}
    after = {"user": 12.0, "system": 6.0, "idle": 105.0, "iowait": 3.0, "guest": 12.0}
    assert busy_ratio(before, after) == pytest.approx(0.3)
    assert busy_ratio(after, after) is None


TIMES = st.dictionaries(st.sampled_from(["user", "system", "idle", "iowait", "steal"]), st.floats(0, 1e9))


@given(TIMES, TIMES)
def test_the_busy_share_stays_a_share(before: dict[str, float], after: dict[str, float]) -> None:
    ratio = busy_ratio(before, after)
    assert ratio is None or 0 <= ratio <= 1


def test_rules_import_only_the_standard_library() -> None:
    source = Path(__file__).parents[3] / "agent_sim" / "agent" / "rules.py"
    imports = [line for line in source.read_text().splitlines() if line.startswith(("import ", "from "))]
    assert not [line for line in imports if any(name in line for name in ("grpc", "fleetwright", "pydantic"))]
