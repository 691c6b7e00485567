"""Where a listing or a watch stopped, in a form that only this server makes.

A token is base64url (RFC 4648, without padding) of a truncated HMAC-SHA-256
(RFC 2104) and a payload that holds the last key and, as a digest, what the
request asked for. It is opaque and not secret: whoever holds one could have
read the rows that it stands between.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass

from controlplane.filtering.errors import PageTokenError

MAX_TOKEN_LENGTH = 1024
"""Characters; the contract's limit of ``page_token`` and ``resume_token``."""

MIN_SECRET_LENGTH = 16
"""Bytes: a shorter key could be found by trying."""

_MAC_LENGTH = 16  # bytes: 128 bits leave nothing to guess, and keep the token short
_BINDING_LENGTH = 12  # bytes: tells requests apart; the HMAC is what protects it
_DOMAIN = b"fleetwright page token v1\0"  # keeps the secret's other uses apart from this one
_MIN_KEY, _MAX_KEY = -(2**63), 2**63 - 1

Key = tuple[int | str, ...]


def digest_of_request(fields: Mapping[str, str | int]) -> bytes:
    """Return a digest of what a request asked for, beside its page size and token.

    ``fields`` are its filter, order, parent and the like; their order is nothing.
    """
    canonical = json.dumps(sorted(fields.items()), ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).digest()


@dataclass(frozen=True, slots=True)
class PageToken:
    """A place in a listing: after the row whose key is ``key``.

    ``kind`` names the listing, as in ``agents`` or ``tasks.watch``; ``request`` is
    ``digest_of_request`` of the call.
    """

    kind: str
    request: bytes
    key: Key

    def encode(self, secret: bytes) -> str:
        """Return the token, at most 1,024 characters.

        Raises ValueError for a key that no token can carry, and for a short secret.
        """
        _check_key(self.key)
        payload = _binding(self.kind, self.request) + json.dumps(
            list(self.key), ensure_ascii=False, separators=(",", ":")
        ).encode("utf-8")
        text = _to_text(_mac(secret, payload) + payload)
        if len(text) > MAX_TOKEN_LENGTH:
            raise ValueError(f"the key of a {self.kind} token needs {len(text)} characters of 1,024")
        return text

    @classmethod
    def decode(
        cls, text: str, *, kind: str, request: bytes, secret: bytes, field: str = "page_token"
    ) -> PageToken:
        """Return the token that this server made for the same listing and request.

        Raises PageTokenError, which names ``field``, for every other text.
        """
        raw = _from_text(text, field)
        mac, payload = raw[:_MAC_LENGTH], raw[_MAC_LENGTH:]
        if not hmac.compare_digest(mac, _mac(secret, payload)):
            raise PageTokenError(
                "was not made by this server: send the one of the last response unchanged, "
                "or leave it empty to begin anew",
                field=field,
            )
        binding, key = payload[:_BINDING_LENGTH], payload[_BINDING_LENGTH:]
        if not hmac.compare_digest(binding, _binding(kind, request)):
            raise PageTokenError(
                "belongs to a request with another filter, order or parent: repeat those of the first page, "
                "or leave it empty to begin anew",
                field=field,
            )
        return cls(kind, request, tuple(json.loads(key)))


def _check_key(key: Key) -> None:
    for part in key:
        if isinstance(part, bool) or not isinstance(part, int | str):
            raise ValueError(f"a key has integers and texts, not {type(part).__name__}")
        if isinstance(part, int) and not _MIN_KEY <= part <= _MAX_KEY:
            raise ValueError("an integer of a key has at most 64 bits")


def _binding(kind: str, request: bytes) -> bytes:
    digest = hashlib.sha256(kind.encode() + b"\0" + request).digest()
    return digest[:_BINDING_LENGTH]


def _mac(secret: bytes, payload: bytes) -> bytes:
    if len(secret) < MIN_SECRET_LENGTH:
        raise ValueError(f"the secret of page tokens has at least {MIN_SECRET_LENGTH} bytes")
    return hmac.digest(secret, _DOMAIN + payload, "sha256")[:_MAC_LENGTH]


def _to_text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _from_text(text: str, field: str) -> bytes:
    if len(text) > MAX_TOKEN_LENGTH:
        raise PageTokenError(
            f"has {len(text)} characters, and none of ours has more than {MAX_TOKEN_LENGTH}: "
            "send the one of the last response unchanged",
            field=field,
        )
    try:
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raw = b""
    # Decoders ignore the last character's spare bits; one token has one spelling here.
    if len(raw) < _MAC_LENGTH + _BINDING_LENGTH or _to_text(raw) != text:
        raise PageTokenError(
            "is not a token: send the one of the last response unchanged, or leave it empty to begin anew",
            field=field,
        )
    return raw
