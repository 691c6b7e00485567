"""The rolling nonce that tells clones from crashes."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from controlplane.agents.rules import Nonces, rotate_nonce

NEVER = Nonces(None, None)


def test_the_first_session_is_not_suspected() -> None:
    assert rotate_nonce(NEVER, b"", b"n1") == (Nonces(b"n1", b""), False)


def test_an_agent_that_never_got_its_first_welcome_is_not_suspected() -> None:
    assert rotate_nonce(Nonces(b"n1", b""), b"", b"n2") == (Nonces(b"n2", b""), False)


def test_the_current_nonce_is_good_and_becomes_the_predecessor() -> None:
    assert rotate_nonce(Nonces(b"n2", b"n1"), b"n2", b"n3") == (Nonces(b"n3", b"n2"), False)


def test_the_predecessor_is_good_and_voids_the_current_one() -> None:
    nonces, suspected = rotate_nonce(Nonces(b"n2", b"n1"), b"n1", b"n3")
    assert not suspected
    assert rotate_nonce(nonces, b"n2", b"n4")[1]


def test_an_older_nonce_and_none_at_all_are_suspected() -> None:
    assert rotate_nonce(Nonces(b"n3", b"n2"), b"n1", b"n4")[1]
    assert rotate_nonce(Nonces(b"n3", b"n2"), b"", b"n4")[1]


def test_after_a_new_enrolment_any_nonce_is_good() -> None:
    assert not rotate_nonce(NEVER, b"n7", b"n8")[1]


class OneAgent(RuleBasedStateMachine):
    """An honest agent that crashes and loses answers, and a copy of its disk."""

    def __init__(self) -> None:
        super().__init__()
        self.known = NEVER
        self.stored = b""
        self.copy: bytes | None = None
        self.handed = 0
        self.suspicions: list[str] = []
        self.copy_spoke = False
        self.own_since_copy_spoke = False

    def _hello(self, shown: bytes) -> tuple[bytes, bool]:
        self.handed += 1
        nonce = f"n{self.handed}".encode()
        self.known, suspected = rotate_nonce(self.known, shown, nonce)
        return nonce, suspected

    @rule(answer_arrives=st.booleans())
    def comes_back(self, answer_arrives: bool) -> None:
        nonce, suspected = self._hello(self.stored)
        if suspected:
            self.suspicions.append("agent")
        if answer_arrives:
            self.stored = nonce
            self.own_since_copy_spoke = self.copy_spoke

    @rule()
    def is_copied(self) -> None:
        if self.copy is None:
            self.copy = self.stored

    @rule()
    def copy_comes(self) -> None:
        if self.copy is None:
            return
        already = self.own_since_copy_spoke
        self.copy, suspected = self._hello(self.copy)
        if suspected:
            self.suspicions.append("copy")
        # Both got an answer since the copy was made and spoke: one of them must have been caught.
        if already:
            assert self.suspicions
        self.copy_spoke = True

    @invariant()
    def an_agent_without_a_copy_is_never_suspected(self) -> None:
        if not self.copy_spoke:
            assert "agent" not in self.suspicions


TestOneAgent = OneAgent.TestCase
TestOneAgent.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
