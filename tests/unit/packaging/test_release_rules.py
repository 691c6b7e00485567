"""What shall be released of a package, and under which paths."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fleetwright.verify.evidence import ATTESTATIONS_SUFFIX, attestations_path
from hypothesis import given
from hypothesis import strategies as st

from controlplane.packaging.release_rules import Evidence, is_agreed, path_of, paths, plan, shown
from controlplane.packaging.rules import Decision
from controlplane.packaging.store.releases import Candidate, Wanted
from controlplane.trust.tuf.roles import RepositoryError, check_path

SHA256 = "a" * 64
PATH = "stable/curl/curl-8.1.deb"
CANDIDATE = Candidate(
    SHA256, "curl", 5, Decision.PASS, "", "", (Wanted("stable", "curl-8.1.deb"),), (("scan", "b" * 64),)
)
EVIDENCE = Evidence("c" * 64, 9, ("b" * 64,))
NAMES = st.text(min_size=1, max_size=300)


def released(candidate: Candidate = CANDIDATE, channel: str = "") -> Candidate:
    """Return the candidate after its plan was carried out."""
    chosen = paths(candidate, [Wanted(channel, "curl-8.1.deb")] if channel else [])
    made = plan(candidate, chosen, EVIDENCE, channel)
    kept = [one for one in candidate.targets if one.target_path not in {put.target_path for put in made.put}]
    return replace(candidate, targets=(*kept, *made.put), channel=made.shown[0], target_path=made.shown[1])


@given(NAMES, NAMES)
def test_every_name_becomes_a_path_that_a_channel_may_release(name: str, file_name: str) -> None:
    path = path_of("stable", name, file_name)
    check_path("stable", path)
    check_path("stable", attestations_path(path))
    assert not path.endswith(ATTESTATIONS_SUFFIX), "other bytes could take its place"


@given(NAMES, NAMES)
def test_two_names_never_become_one_path(one: str, two: str) -> None:
    assert (path_of("stable", one, "f") == path_of("stable", two, "f")) == (one == two)


def test_a_name_that_looks_like_the_path_of_another_one_is_not_taken_for_it() -> None:
    taken = path_of("stable", "@acme/tool", "f").split("/")[1]
    assert path_of("stable", taken, "f").split("/")[1] != taken


def test_plain_names_stay_as_they_are() -> None:
    assert path_of("beta", "curl", "curl_8.1+deb~1_amd64.deb") == "beta/curl/curl_8.1+deb~1_amd64.deb"
    with pytest.raises(RepositoryError, match="channel 'Root'"):
        path_of("Root", "curl", "curl.deb")


@pytest.mark.parametrize("decision", [Decision.FAIL, Decision.UNJUDGED])
def test_nothing_is_chosen_of_what_policy_does_not_let_pass(decision: Decision) -> None:
    against = replace(released(), decision=decision)
    assert paths(against, [Wanted("beta", "x")]) == {}
    made = plan(against, {}, None)
    assert {one.target_path for one in made.withdraw} == {PATH, attestations_path(PATH)}
    assert (made.put, made.shown) == ((), ("", ""))


def test_what_was_carried_out_is_agreed_on() -> None:
    assert not is_agreed(CANDIDATE, paths(CANDIDATE))
    after = released()
    assert is_agreed(after, paths(after))
    assert not plan(after, paths(after), EVIDENCE).changes


def test_other_attestations_are_put_alone() -> None:
    after = replace(released(), evidence=(("scan", "d" * 64),))
    assert not is_agreed(after, paths(after))
    made = plan(after, paths(after), Evidence("e" * 64, 9, ("d" * 64,)))
    assert [one.target_path for one in made.put] == [attestations_path(PATH)]
    assert made.withdraw == ()


def test_a_package_is_shown_with_the_channel_that_it_came_to_last() -> None:
    after = released(released(), "beta")
    assert set(paths(after)) == {"stable", "beta"}
    assert after.channel == "beta"
    assert shown(after, paths(after)) == ("beta", "beta/curl/curl-8.1.deb")
    assert shown(after, paths(after), "stable") == ("stable", PATH)
    assert is_agreed(after, paths(after))
