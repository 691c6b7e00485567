from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from controlplane.identity import rules
from controlplane.identity.rules import (
    TRANSITIONS,
    Admission,
    CertificateState,
    JoinToken,
    Standing,
    TokenState,
    admission,
    read_join_token,
    renew_after,
    token_state,
)

SECRETS = st.binary(min_size=32, max_size=32)
TOKEN_IDS = st.text(rules.TOKEN_ID_ALPHABET, min_size=16, max_size=16)
TIMES = st.integers(0, 10**6)


@given(TOKEN_IDS, SECRETS)
def test_a_join_token_reads_back_as_it_was_written(token_id: str, secret: bytes) -> None:
    token = JoinToken(token_id, secret, "digest")
    assert read_join_token(token.write()) == token


@given(st.text(max_size=300))
@example("")
@example("fwt1...")
@example("fwt1.aaaaaaaaaaaaaaaa.é.x")
@example("fwt1.aaaaaaaaaaaaaaaa..x")
def test_whatever_reads_as_a_join_token_is_spelled_in_the_one_way(text: str) -> None:
    token = read_join_token(text)
    assert token is None or token.write() == text


@given(TOKEN_IDS, SECRETS)
def test_another_spelling_of_the_same_secret_is_no_token(token_id: str, secret: bytes) -> None:
    text = JoinToken(token_id, secret, "digest").write()
    version, identifier, encoded, digest = text.split(".")
    assert read_join_token(f"{version}.{identifier}.{encoded}=.{digest}") is None
    assert read_join_token(f"{version}.{identifier}.{encoded}.{digest}\n") != JoinToken(
        token_id, secret, digest
    )
    # The last of the 43 characters has two spare bits; only zeros are ours.
    spare = chr(ord(encoded[-1]) + 1)
    assert read_join_token(f"{version}.{identifier}.{encoded[:-1]}{spare}.{digest}") is None


def test_a_join_token_does_not_print_its_secret() -> None:
    token = JoinToken("a" * 16, b"\x07" * 32, "digest")
    assert "BwcH" not in repr(token)
    assert "x07" not in repr(token)


@given(SECRETS, SECRETS)
def test_only_the_same_secret_matches(one: bytes, other: bytes) -> None:
    assert rules.secret_matches(one, rules.secret_digest(one))
    assert rules.secret_matches(one, rules.secret_digest(other)) is (one == other)


def test_no_secret_matches_a_token_that_does_not_exist() -> None:
    assert not rules.secret_matches(bytes(32), None)
    assert not rules.secret_matches(b"", None)


@given(TIMES, st.none() | TIMES, st.integers(0, 5), st.integers(1, 5), TIMES)
def test_a_token_is_active_only_in_its_time_unrevoked_and_with_uses_left(
    expire: int, revoke: int | None, used: int, most: int, now: int
) -> None:
    state = token_state(expire_time=expire, revoke_time=revoke, use_count=used, max_uses=most, now=now)
    assert (state is TokenState.ACTIVE) == (revoke is None and now < expire and used < most)
    assert (state is TokenState.REVOKED) == (revoke is not None)


@given(st.sampled_from(CertificateState), TIMES, TIMES, TIMES)
def test_a_certificate_is_admitted_only_live_and_within_its_time(
    state: CertificateState, not_before: int, not_after: int, now: int
) -> None:
    verdict = admission("node-1", Standing("node-1", state, not_before, not_after), now)
    live = state in rules.LIVE_STATES
    assert (verdict is Admission.REVOKED) == (not live)
    assert (verdict in (Admission.ACCEPT, Admission.PROMOTE)) == (live and not_before <= now <= not_after)
    assert verdict is not Admission.PROMOTE or state is CertificateState.NEXT


def test_the_certificate_of_another_agent_is_refused() -> None:
    standing = Standing("node-2", CertificateState.CURRENT, 0, 10)
    assert admission("node-1", standing, 5) is Admission.REVOKED


def test_a_certificate_that_was_never_issued_is_refused() -> None:
    assert admission("node-1", None, 5) is Admission.REVOKED


def test_no_state_of_a_certificate_can_be_reached_again() -> None:
    for state, following in TRANSITIONS.items():
        assert all(after.value > state.value for after in following)


@given(TIMES, TIMES)
def test_renewal_is_due_half_way_and_never_before_the_issue(issue: int, end: int) -> None:
    due = renew_after(issue, end)
    assert due >= issue
    assert end < issue or due - issue <= end - due <= due - issue + 1


class Renewals(RuleBasedStateMachine):
    """One agent's certificates under any order of renewals, uses and revocations."""

    def __init__(self) -> None:
        super().__init__()
        self.states = [CertificateState.CURRENT]

    def _move(self, state: CertificateState, to: CertificateState) -> None:
        for place, present in enumerate(self.states):
            if present is state:
                assert to in TRANSITIONS[state]
                self.states[place] = to

    @rule()
    def renew(self) -> None:
        self._move(CertificateState.NEXT, CertificateState.SUPERSEDED)
        self.states.append(CertificateState.NEXT)

    @rule(data=st.data())
    def show_any(self, data: st.DataObject) -> None:
        shown = data.draw(st.integers(0, len(self.states) - 1))
        before = self.states[shown]
        verdict = admission("a", Standing("a", before, 0, 10), 5)
        if verdict is Admission.PROMOTE:
            self._move(CertificateState.CURRENT, CertificateState.SUPERSEDED)
            self._move(CertificateState.NEXT, CertificateState.CURRENT)
        assert before in rules.LIVE_STATES or verdict is Admission.REVOKED

    @rule()
    def revoke_all(self) -> None:
        for state in rules.LIVE_STATES:
            self._move(state, CertificateState.REVOKED)

    @invariant()
    def at_most_one_is_current_and_one_next(self) -> None:
        assert self.states.count(CertificateState.CURRENT) <= 1
        assert self.states.count(CertificateState.NEXT) <= 1


TestRenewals = Renewals.TestCase
