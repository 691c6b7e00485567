"""The decision on a package: three values, and exceptions that count or do not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.packaging.policy.rules import (
    Decision,
    Objection,
    Outcome,
    PolicyException,
    Refusal,
    combined,
    flaw,
    judge,
    rule_subject,
)

PACKAGE, OTHER = "a" * 64, "b" * 64
NOW = 1_000_000
CRITICAL = Objection("no-critical", Outcome.FAIL, ("CVE-1", "GHSA-1"), about="pkg:pypi/x@1")
UNKNOWN = Objection("known-severity", Outcome.UNDECIDED, ("CVE-2",), about="pkg:pypi/y@1")
GOOD = PolicyException("e1", PACKAGE, "CVE-1", "alice", "bob", NOW + 1)

vulnerabilities = st.sampled_from(["CVE-1", "CVE-2", "CVE-3", rule_subject("covered")])
objections = st.builds(
    Objection,
    rule=st.sampled_from(["no-critical", "covered"]),
    outcome=st.sampled_from([Outcome.FAIL, Outcome.UNDECIDED]),
    vulnerabilities=st.lists(vulnerabilities, min_size=1, max_size=3, unique=True).map(tuple),
    excusable=st.booleans(),
    about=st.sampled_from(["", "pkg:pypi/x@1"]),
)
people = st.sampled_from(["alice", "Alice ", "bob", ""])
exceptions = st.builds(
    PolicyException,
    exception_id=st.sampled_from(["e1", "e2", "e3"]),
    package_sha256=st.sampled_from([PACKAGE, OTHER]),
    vulnerability=vulnerabilities,
    requester=people,
    approver=people,
    expires=st.integers(NOW - 2, NOW + 2),
    revoked=st.booleans(),
)


def decision(*against: Objection, given_: tuple[PolicyException, ...] = (), now: int = NOW) -> Decision:
    return judge(PACKAGE, against, given_, now).decision


def test_what_no_rule_objects_to_passes() -> None:
    assert decision() is Decision.PASS


def test_an_objection_fails_the_package() -> None:
    assert decision(CRITICAL) is Decision.FAIL


def test_what_nobody_has_decided_on_fails_the_package() -> None:
    found = judge(PACKAGE, [UNKNOWN], [], NOW)
    assert (found.outcome, found.decision) == (Outcome.UNDECIDED, Decision.FAIL)


def test_an_exception_lifts_the_objection_that_it_names() -> None:
    found = judge(PACKAGE, [CRITICAL], [GOOD], NOW)
    assert found.decision is Decision.EXCEPTION
    assert found.rulings[0].exception_id == "e1"
    assert found.weighings[0].refusal is None


def test_an_exception_may_name_a_vulnerability_by_any_of_its_ids() -> None:
    assert decision(CRITICAL, given_=(replace(GOOD, vulnerability="GHSA-1"),)) is Decision.EXCEPTION


def test_every_objection_must_be_lifted() -> None:
    assert decision(CRITICAL, UNKNOWN, given_=(GOOD,)) is Decision.FAIL


def test_an_objection_to_the_whole_package_is_lifted_by_the_name_of_its_rule() -> None:
    whole = Objection("covered", Outcome.UNDECIDED, (rule_subject("covered"),))
    assert decision(whole, given_=(replace(GOOD, vulnerability="rule:covered"),)) is Decision.EXCEPTION


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"package_sha256": OTHER}, Refusal.OTHER_PACKAGE),
        ({"vulnerability": "CVE-9"}, Refusal.OTHER_VULNERABILITY),
        ({"approver": ""}, Refusal.NOT_APPROVED),
        ({"approver": "  "}, Refusal.NOT_APPROVED),
        ({"requester": ""}, Refusal.REQUESTER_UNKNOWN),
        ({"approver": "alice"}, Refusal.OWN_REQUEST),
        ({"approver": " ALICE "}, Refusal.OWN_REQUEST),
        ({"revoked": True}, Refusal.REVOKED),
        ({"expires": NOW}, Refusal.EXPIRED),
        ({"expires": NOW - 1}, Refusal.EXPIRED),
    ],
)
def test_an_exception_that_does_not_count_says_why(changes: dict[str, Any], refusal: Refusal) -> None:
    found = judge(PACKAGE, [CRITICAL], [replace(GOOD, **changes)], NOW)
    assert found.decision is Decision.FAIL
    assert [one.refusal for one in found.weighings] == [refusal]


def test_a_rule_may_allow_no_exceptions() -> None:
    found = judge(PACKAGE, [replace(CRITICAL, excusable=False)], [GOOD], NOW)
    assert found.decision is Decision.FAIL
    assert found.weighings[0].refusal is Refusal.NOT_EXCUSABLE


def test_an_exception_ceases_to_count_when_judged_again_later() -> None:
    assert decision(CRITICAL, given_=(GOOD,), now=NOW) is Decision.EXCEPTION
    assert decision(CRITICAL, given_=(GOOD,), now=NOW + 1) is Decision.FAIL


def test_every_reason_is_in_other_words() -> None:
    assert len({refusal.value for refusal in Refusal}) == len(Refusal)


@given(st.lists(objections, max_size=4), st.lists(exceptions, max_size=4))
def test_only_what_no_rule_objects_to_passes(against: list[Objection], given_: list[PolicyException]) -> None:
    found = judge(PACKAGE, against, given_, NOW)
    assert (found.decision is Decision.PASS) == (not against)


@given(st.lists(objections, max_size=4), st.lists(exceptions, max_size=4))
def test_an_exception_needs_a_good_one_for_every_objection(
    against: list[Objection], given_: list[PolicyException]
) -> None:
    good = {one.vulnerability for one in given_ if flaw(one, PACKAGE, NOW) is None}
    lifted = all(one.excusable and good & set(one.vulnerabilities) for one in against)
    found = judge(PACKAGE, against, given_, NOW)
    assert (found.decision is Decision.EXCEPTION) == (bool(against) and lifted)


@given(st.lists(objections, max_size=4), st.lists(exceptions, max_size=4), exceptions)
def test_an_exception_that_does_not_count_changes_nothing(
    against: list[Objection], given_: list[PolicyException], more: PolicyException
) -> None:
    bad = replace(more, exception_id="e9")
    if flaw(bad, PACKAGE, NOW) is None:
        bad = replace(bad, expires=NOW)
    before, after = judge(PACKAGE, against, given_, NOW), judge(PACKAGE, against, [*given_, bad], NOW)
    assert (after.decision, after.rulings) == (before.decision, before.rulings)


@given(st.lists(objections, max_size=4), st.lists(exceptions, max_size=4), st.randoms(use_true_random=False))
def test_the_order_of_things_does_not_matter(
    against: list[Objection], given_: list[PolicyException], random: Any
) -> None:
    first = judge(PACKAGE, against, given_, NOW)
    random.shuffle(against)
    random.shuffle(given_)
    assert judge(PACKAGE, against, given_, NOW) == first


@given(st.lists(objections, max_size=4), st.lists(exceptions, max_size=4), st.integers(0, 4))
def test_time_alone_never_makes_a_package_better(
    against: list[Objection], given_: list[PolicyException], later: int
) -> None:
    now, then = judge(PACKAGE, against, given_, NOW), judge(PACKAGE, against, given_, NOW + later)
    if now.decision is Decision.FAIL:
        assert then.decision is Decision.FAIL


@given(st.lists(objections, max_size=4), st.lists(exceptions, max_size=4), objections)
def test_one_more_objection_never_makes_a_package_better(
    against: list[Objection], given_: list[PolicyException], more: Objection
) -> None:
    if judge(PACKAGE, against, given_, NOW).decision is Decision.FAIL:
        assert judge(PACKAGE, [*against, more], given_, NOW).decision is Decision.FAIL


@given(st.lists(objections, max_size=4), st.lists(exceptions, max_size=4))
def test_every_exception_is_weighed_and_counts_only_where_it_lifts(
    against: list[Objection], given_: list[PolicyException]
) -> None:
    found = judge(PACKAGE, against, given_, NOW)
    assert len(found.weighings) == len(given_)
    counting = {one.exception.exception_id for one in found.weighings if one.refusal is None}
    assert {one.exception_id for one in found.rulings if one.exception_id} <= counting


@given(st.lists(st.sampled_from(list(Outcome))))
def test_the_worst_outcome_is_what_counts(outcomes: list[Outcome]) -> None:
    order = [Outcome.PASS, Outcome.UNDECIDED, Outcome.FAIL]
    assert combined(outcomes) is max(outcomes, key=order.index, default=Outcome.PASS)
