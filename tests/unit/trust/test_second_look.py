"""Ed25519 by our own integers: the vectors of RFC 8032, and agreement with the library that signs."""

from __future__ import annotations

import pytest
from fleetwright.verify.statements import Subject
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.trust import dsse
from controlplane.trust.keys import SigningKey
from controlplane.trust.second_look import confirms, is_good
from controlplane.trust.statements import cyclonedx

ORDER = 2**252 + 27742317777372353535851937790883648493

# RFC 8032, section 7.1: TEST 1 to 3 (public key, message, signature).
VECTORS = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
        "387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
        "4a7c15e9716ed28dc027beceea1ec40a",
    ),
]
KEY = SigningKey.generate()
PUBLIC = bytes.fromhex(KEY.public.public)


@pytest.mark.parametrize(("public", "message", "signature"), VECTORS)
def test_the_vectors_of_the_rfc_are_good(public: str, message: str, signature: str) -> None:
    assert is_good(bytes.fromhex(public), bytes.fromhex(signature), bytes.fromhex(message))
    assert not is_good(bytes.fromhex(public), bytes.fromhex(signature), bytes.fromhex(message) + b"!")


@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 511))
def test_what_the_library_signed_is_good_and_any_other_bit_is_not(message: bytes, bit: int) -> None:
    signature = KEY.sign(message)
    assert is_good(PUBLIC, signature, message)
    other = bytearray(signature)
    other[bit // 8] ^= 1 << bit % 8
    assert not is_good(PUBLIC, bytes(other), message)


@settings(max_examples=25, deadline=None)
@given(st.binary(max_size=40), st.binary(max_size=70))
def test_garbage_is_never_good(public: bytes, signature: bytes) -> None:
    assert not is_good(public, signature, b"message")


def test_a_signature_whose_scalar_is_not_reduced_is_not_good() -> None:
    signature = KEY.sign(b"message")
    scalar = int.from_bytes(signature[32:], "little") + ORDER
    assert not is_good(PUBLIC, signature[:32] + scalar.to_bytes(32, "little"), b"message")


def test_an_envelope_is_confirmed_for_its_own_key_and_payload() -> None:
    payload = cyclonedx(
        [Subject("x", "a" * 64)], {"bomFormat": "CycloneDX", "specVersion": "1.6", "components": []}
    )
    envelope = dsse.sign(payload, [KEY])
    assert confirms(envelope, KEY.public)
    assert not confirms(envelope, SigningKey.generate().public)
    assert not confirms(envelope.replace(b'"sig":"', b'"sig":"A', 1), KEY.public)
    assert not confirms(b"garbage", KEY.public)
