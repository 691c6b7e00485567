"""Rules as data: what they answer, and that an error is never a pass."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.packaging.policy import cel
from controlplane.packaging.policy.cel import evaluate, load_policy
from controlplane.packaging.policy.default import DEFAULT_POLICY
from controlplane.packaging.policy.document import PolicyError
from controlplane.packaging.policy.facts import counts
from controlplane.packaging.policy.rules import Outcome
from controlplane.packaging.records import Severity
from tests.unit.packaging.policy.packages import facts, finding, policy


def refused(when: str, about: str = "package") -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        policy(when, about)
    assert caught.value.rule == "the-rule"
    return caught.value


def errs(when: str, about: str = "package", *findings: Any) -> PolicyError:
    compiled = policy(when, about)
    with pytest.raises(PolicyError) as caught:
        evaluate(compiled, facts(*findings))
    assert caught.value.rule == "the-rule"
    return caught.value


def objects(when: str, *findings: Any, about: str = "package") -> bool:
    return bool(evaluate(policy(when, about), facts(*findings)).objections)


@pytest.mark.parametrize(
    ("severity", "rule", "outcome"),
    [
        (Severity.CRITICAL, "no-critical", Outcome.FAIL),
        (Severity.HIGH, "no-high", Outcome.FAIL),
        (Severity.UNKNOWN, "known-severity", Outcome.UNDECIDED),
    ],
)
def test_the_default_policy_objects_to_what_is_bad_or_unknown(
    severity: Severity, rule: str, outcome: Outcome
) -> None:
    (found,) = evaluate(load_policy(DEFAULT_POLICY), facts(finding(severity))).objections
    assert (found.rule, found.outcome) == (rule, outcome)
    assert found.vulnerabilities == ("CVE-1", "GHSA-CVE-1")
    assert found.about == "pkg:pypi/x@1"


@pytest.mark.parametrize("severity", [Severity.MEDIUM, Severity.LOW])
def test_the_default_policy_lets_lesser_findings_pass(severity: Severity) -> None:
    assert evaluate(load_policy(DEFAULT_POLICY), facts(finding(severity))).objections == ()


@pytest.mark.parametrize("state", ["not_affected", "fixed"])
def test_the_default_policy_passes_over_what_is_said_not_to_affect(state: str) -> None:
    one = finding(Severity.CRITICAL, state=state)
    assert evaluate(load_policy(DEFAULT_POLICY), facts(one)).objections == ()


@pytest.mark.parametrize("state", ["affected", "under_investigation", "a word of tomorrow"])
def test_any_other_word_leaves_a_finding_in_force(state: str) -> None:
    one = finding(Severity.CRITICAL, state=state)
    assert len(evaluate(load_policy(DEFAULT_POLICY), facts(one)).objections) == 1


def test_the_default_policy_asks_about_what_is_not_covered() -> None:
    (found,) = evaluate(load_policy(DEFAULT_POLICY), facts(uncovered=("Go",))).objections
    assert (found.rule, found.outcome) == ("covered", Outcome.UNDECIDED)
    assert found.vulnerabilities == ("rule:covered",)


def test_counts_are_of_what_is_in_force() -> None:
    found = counts([finding(Severity.HIGH), finding(Severity.HIGH, state="fixed"), finding(Severity.UNKNOWN)])
    assert found == {"critical": 0, "high": 1, "medium": 0, "low": 0, "unknown": 1}


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("counts.high > 0", True),
        ("counts.high > 1", False),
        ("package.type == 'wheel' && coverage.claimed < coverage.files", True),
        ("findings.exists(f, f.severity == 'high')", True),
        ("findings.all(f, f.fixed != '')", True),
        ("findings.filter(f, f.in_force).exists_one(g, g.score > 9.0)", False),
        ("size(findings.map(f, f.component)) == 1", True),
        ("findings[0].aliases.exists(a, a.startsWith('GHSA-'))", True),
        ("advisories.age_seconds > 86400", False),
        ("provenance.source_commit.matches('^[0-9a-f]{40}$')", False),
        ("'fleetwright' in findings[0].found_by", True),
        ("true ? false : true", False),
    ],
)
def test_rules_can_ask_about_the_whole_input(when: str, expected: bool) -> None:
    assert objects(when, finding()) is expected


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ("cuonts.high > 0", "'cuonts' is not known"),
        ("counts.hihg > 0", "counts has no field 'hihg'"),
        ("counts.high > 0 || counts.hihg > 0", "hihg"),
        ("false && package.speed", "speed"),
        ("findings.exists(f, f.severty == 'high')", "severty"),
        ("findings.exists(f, g.severity == 'high')", "'g' is not known"),
        ("package.name.length > 3", "length"),
        ("finding.severity == 'high'", "'finding' is not known"),
        ("size(findings) > now()", "'now' is no function"),
        ("findings.sort()", "'sort' is no function"),
        ("findings.reduce(a, b, 0, a + 1) > 0", "'reduce' is no function"),
        ("findings.exists(f)", "wants a name and an expression"),
        ("findings.exists(1, true)", "wants a name and an expression"),
        (".package.name == ''", "leading dot"),
        ("counts.high >", "is no CEL"),
        ("((((", "is no CEL"),
        ("counts.high; drop", "is no CEL"),
        ("(" * 60 + "true" + ")" * 60, "nested too deeply"),
    ],
)
def test_a_rule_that_asks_for_what_is_not_there_is_refused_when_loaded(when: str, said: str) -> None:
    assert said in str(refused(when))


@pytest.mark.parametrize("when", ["!" * 2_000 + "true", " || ".join(["true"] * 250), "-" * 2_000 + "1 == 1"])
def test_a_long_rule_is_answered_or_refused(when: str) -> None:
    with suppress(PolicyError):
        assert objects(when)


def test_an_error_of_syntax_says_where() -> None:
    assert "line 1, column" in str(refused("counts.high > > 1"))


@pytest.mark.parametrize(
    ("when", "said"),
    [
        ("counts.high / counts.critical > 1", "divide by zero"),
        ("counts.high", "gives a IntType"),
        ("package.name", "gives a StringType"),
        ("findings", "gives a ListType"),
        ("findings[0].severity == 'high'", "errs"),
        ("package.name > 3", "errs"),
        ("int(package.name) > 0", "errs"),
        ("package.name.matches('(')", "errs"),
        ("{'a': 1}['b'] == 1", "errs"),
        ("null", "gives a NoneType"),
    ],
)
def test_a_rule_that_errs_fails_the_stage_and_passes_nothing(when: str, said: str) -> None:
    assert said in str(errs(when))


def test_a_score_that_nobody_gave_is_no_number() -> None:
    assert "errs" in str(errs("finding.score >= 7.0", "finding", finding(score=None)))


def test_a_rule_may_look_whether_there_is_a_score() -> None:
    when = "finding.scored && finding.score >= 7.0"
    assert objects(when, finding(score=7.5), about="finding")
    assert not objects(when, finding(score=None), about="finding")


def test_an_expression_that_would_take_for_ever_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cel, "MAX_STEPS", 50_000)
    many = [finding(vulnerability=f"CVE-{number}") for number in range(100)]
    when = "findings.all(a, findings.all(b, findings.all(c, a.component == b.component)))"
    assert "steps" in str(errs(when, "package", *many))


def test_time_is_limited_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cel, "MAX_SECONDS", -1.0)
    many = [finding(vulnerability=f"CVE-{number}") for number in range(100)]
    assert "seconds" in str(errs("findings.all(a, findings.all(b, true))", "package", *many))


def test_a_number_that_cel_cannot_hold_is_told() -> None:
    broken = facts()
    broken["counts"]["high"] = 2**70
    with pytest.raises(PolicyError):
        evaluate(policy("counts.high > 0"), broken)


def test_the_trace_says_what_a_rule_read_and_what_it_said() -> None:
    found = evaluate(
        load_policy(DEFAULT_POLICY), facts(finding(Severity.HIGH), finding(Severity.LOW, "CVE-2"))
    )
    high = next(trace for trace in found.traces if trace.rule.name == "no-high")
    assert (high.outcome, high.asked, high.objections) == (Outcome.FAIL, 2, 1)
    assert high.matched == (
        {
            "vulnerability": "CVE-1",
            "component": "pkg:pypi/x@1",
            "read": {"finding.in_force": True, "finding.severity": "high"},
        },
    )
    covered = next(trace for trace in found.traces if trace.rule.name == "covered")
    assert (covered.outcome, covered.asked, dict(covered.inputs)) == (
        Outcome.PASS,
        1,
        {"coverage.uncovered": []},
    )


def test_a_long_input_is_told_by_its_size() -> None:
    many = [finding(vulnerability=f"CVE-{number}") for number in range(100)]
    (trace,) = evaluate(policy("size(findings) > 0"), facts(*many)).traces
    assert dict(trace.inputs) == {"findings": "100 entries"}


def test_many_findings_are_judged_quickly() -> None:
    many = [finding(Severity.HIGH, f"CVE-{number}") for number in range(5_000)]
    assert len(evaluate(load_policy(DEFAULT_POLICY), facts(*many)).objections) == 5_000


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(list(Severity)), st.sampled_from(["affected", "fixed"])), max_size=6)
)
def test_one_answer_for_findings_that_are_alike_is_the_answer_for_each(
    drawn: list[tuple[Severity, str]],
) -> None:
    findings = [finding(severity, f"CVE-{n}", state=state) for n, (severity, state) in enumerate(drawn)]
    together = evaluate(load_policy(DEFAULT_POLICY), facts(*findings)).objections
    apart = [
        one for each in findings for one in evaluate(load_policy(DEFAULT_POLICY), facts(each)).objections
    ]
    assert sorted(together, key=repr) == sorted(apart, key=repr)


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="counts.high>0&|!()[]{}'\"+-*/%,: finding?\n\\x0", max_size=40))
def test_garbage_is_never_a_pass_by_accident(when: str) -> None:
    try:
        found = evaluate(policy(when), facts(finding()))
    except PolicyError:
        return
    assert all(isinstance(trace.outcome, Outcome) for trace in found.traces)


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.sampled_from(
            ["counts.high", "1", "true", "package.name", "findings", "null", "'x'", "findings[0]"]
        ),
        lambda inner: st.tuples(inner, st.sampled_from(["==", "&&", "+", ">", "in", "/"]), inner).map(
            lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"
        ),
        max_leaves=6,
    )
)
def test_well_formed_nonsense_gives_an_answer_or_an_error_of_ours(when: str) -> None:
    with suppress(PolicyError):
        evaluate(policy(when), facts())


def test_json_and_yaml_policies_answer_alike() -> None:
    canonical = load_policy(DEFAULT_POLICY).policy.canonical
    assert json.loads(canonical)["name"] == "default"
    given_ = facts(finding(Severity.HIGH))
    assert evaluate(load_policy(canonical.encode()), given_) == evaluate(load_policy(DEFAULT_POLICY), given_)
