"""Tokens come back as they went out, and nothing else comes back at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.filtering import PageToken, PageTokenError, digest_of_request
from controlplane.filtering.pages import MAX_TOKEN_LENGTH, Key

SECRET = b"a secret of tests that is long enough"
REQUEST = digest_of_request({"filter": "presence = ONLINE", "order": "name"})
TOKEN = PageToken("agents", REQUEST, ("web-1", 7)).encode(SECRET)

_integers = st.integers(-(2**63), 2**63 - 1)
_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
_keys = st.lists(_integers | _texts, max_size=4).map(tuple)


def decode(text: str, kind: str = "agents", request: bytes = REQUEST, secret: bytes = SECRET) -> PageToken:
    return PageToken.decode(text, kind=kind, request=request, secret=secret)


@given(_keys)
def test_a_key_comes_back_as_it_went_out(key: Key) -> None:
    text = PageToken("agents", REQUEST, key).encode(SECRET)
    assert len(text) <= MAX_TOKEN_LENGTH
    assert decode(text).key == key


def test_a_token_of_another_filter_is_refused() -> None:
    other = digest_of_request({"filter": "presence = STALE", "order": "name"})
    with pytest.raises(PageTokenError, match="another filter"):
        decode(TOKEN, request=other)


def test_a_token_of_another_listing_is_refused() -> None:
    with pytest.raises(PageTokenError, match="another filter"):
        decode(TOKEN, kind="watch")


def test_a_token_of_another_server_is_refused() -> None:
    with pytest.raises(PageTokenError, match="not made by this server"):
        decode(TOKEN, secret=b"another secret that is long enough")


@given(st.integers(0, len(TOKEN) - 1), st.sampled_from("AZaz09-_=+/ é"))
def test_a_changed_character_is_refused(index: int, char: str) -> None:
    changed = TOKEN[:index] + char + TOKEN[index + 1 :]
    if changed != TOKEN:
        with pytest.raises(PageTokenError):
            decode(changed)


@given(st.text() | st.integers(0, len(TOKEN) - 1).map(lambda length: TOKEN[:length]))
def test_garbage_and_pieces_are_refused(text: str) -> None:
    with pytest.raises(PageTokenError, match="leave it empty"):
        decode(text)


@pytest.mark.parametrize("text", ["A" * (MAX_TOKEN_LENGTH + 1), TOKEN + "=", TOKEN + "\n", "", "\ud800"])
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(PageTokenError):
        decode(text)


def test_an_error_carries_what_the_wire_needs() -> None:
    with pytest.raises(PageTokenError) as refused:
        PageToken.decode("x", kind="watch", request=REQUEST, secret=SECRET, field="resume_token")
    assert refused.value.reason == "PAGE_TOKEN_INVALID"
    assert [violation.field for violation in refused.value.violations] == ["resume_token"]


@pytest.mark.parametrize("key", [("x" * 1024,), (2**63,), (True,), (1.5,)])
def test_a_key_that_no_token_carries_is_a_defect(key: Key) -> None:
    with pytest.raises(ValueError, match="key"):
        PageToken("agents", REQUEST, key).encode(SECRET)


def test_a_short_secret_is_a_defect() -> None:
    with pytest.raises(ValueError, match="at least 16 bytes"):
        PageToken("agents", REQUEST, ()).encode(b"short")


def test_a_digest_tells_fields_apart_and_ignores_their_order() -> None:
    assert digest_of_request({"a": "1", "b": "2"}) == digest_of_request({"b": "2", "a": "1"})
    assert digest_of_request({"a": "1", "b": ""}) != digest_of_request({"a": "", "b": "1"})
    assert digest_of_request({"a": "1"}) != digest_of_request({"a": 1})
