"""Policies as documents: what is read, what is refused, and by which digest they are known."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.packaging.policy.default import DEFAULT_POLICY
from controlplane.packaging.policy.document import PolicyError, read_policy
from controlplane.packaging.policy.rules import Outcome

RULE: dict[str, Any] = {"name": "one", "about": "package", "when": "true", "outcome": "FAIL"}
POLICY: dict[str, Any] = {
    "schema": "fleetwright.policy/v1",
    "name": "mine",
    "version": "1",
    "description": "",
    "rules": [RULE],
}


def refused(document: object) -> PolicyError:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    with pytest.raises(PolicyError) as caught:
        read_policy(text)
    return caught.value


def test_the_default_policy_blocks_critical_and_high_and_asks_about_the_rest() -> None:
    found = {rule.name: rule.outcome for rule in read_policy(DEFAULT_POLICY).rules}
    assert found == {
        "no-critical": Outcome.FAIL,
        "no-high": Outcome.FAIL,
        "known-severity": Outcome.UNDECIDED,
        "covered": Outcome.UNDECIDED,
        "identified": Outcome.UNDECIDED,
    }


def test_spaces_comments_and_order_do_not_change_the_digest() -> None:
    yaml = (
        b"# a comment\nversion: '1'\nname: mine\nschema: fleetwright.policy/v1\n"
        b"rules:\n- {outcome: FAIL, when: ' true ', about: package, name: one}\n"
    )
    assert read_policy(yaml).sha256 == read_policy(json.dumps(POLICY).encode()).sha256


def test_another_expression_changes_the_digest() -> None:
    other = {**POLICY, "rules": [{**RULE, "when": "false"}]}
    assert read_policy(json.dumps(other).encode()).sha256 != read_policy(json.dumps(POLICY).encode()).sha256


def test_a_policy_reads_back_from_its_canonical_form() -> None:
    found = read_policy(DEFAULT_POLICY)
    assert read_policy(found.canonical.encode()) == found


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": "other"}, "schema"),
        ({"schema": None}, "schema"),
        ({"name": "With Spaces"}, "name"),
        ({"version": 1.1}, "put numbers in quotes"),
        ({"rules": []}, "rules"),
        ({"rules": "true"}, "rules"),
        ({"rules": [RULE] * 101}, "rules"),
        ({"rules": [RULE, RULE]}, "'one': occurs twice"),
        ({"rules": ["x"]}, r"rules[0]"),
        ({"more": 1}, "'more' is no field"),
        ({"description": "x" * 1001}, "description"),
    ],
)
def test_what_is_wrong_with_a_policy_is_named(changes: dict[str, Any], said: str) -> None:
    assert said in str(refused({**POLICY, **changes}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"about": "finding "}, "about"),
        ({"about": ["package"]}, "about"),
        ({"outcome": "PASS"}, "outcome"),
        ({"outcome": True}, "outcome"),
        ({"when": ""}, "when"),
        ({"when": True}, "when"),
        ({"when": "x" * 2049}, "when"),
        ({"excusable": "no way"}, "excusable"),
        ({"weight": 3}, "'weight' is no field"),
    ],
)
def test_what_is_wrong_with_a_rule_is_named_with_it(changes: dict[str, Any], said: str) -> None:
    error = refused({**POLICY, "rules": [{**RULE, **changes}]})
    assert error.rule == "one"
    assert said in str(error)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "is no mapping"),
        (b"- a", "is no mapping"),
        (b"a: [", "neither YAML nor JSON"),
        (b"a: 1\na: 2", "twice"),
        (b"a: &x 1\nb: *x", "alias"),
        (b"!!python/object/apply:os.system [ls]", "neither YAML nor JSON"),
        (b"\xff\xfe\xfa", "UTF-8"),
        (b"[" * 5_000, "nested too deeply"),
        (b"{" * 5_000, "nested too deeply"),
        (b"? [a]\n: 1", "field is no text"),
        (b"x: " + b"y" * 65_536, "at most"),
        (b"a: 1\n---\nb: 2", "neither YAML nor JSON"),
        (b"\x00", "neither YAML nor JSON"),
    ],
)
def test_what_is_no_policy_at_all_is_told(text: bytes, said: str) -> None:
    assert said in str(refused(text))


@given(st.binary(max_size=80))
def test_garbage_is_refused(text: bytes) -> None:
    refused(text)


@given(st.text(alphabet="{}[]:,-'\"#&*!|>? \nabc", max_size=40))
def test_what_looks_like_yaml_is_refused(text: str) -> None:
    refused(text.encode())
