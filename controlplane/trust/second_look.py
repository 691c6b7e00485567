"""A second look at our own signatures: Ed25519 verified by other code than that which signed.

What signs and what verifies everywhere else stands on one library, and would share its mistakes. This is the
verification of RFC 8032, section 5.1.7, in plain integers: slow (some milliseconds), and only for public
data, for its time depends on its input. Nothing is believed by it alone.
"""

from __future__ import annotations

import hashlib
from typing import Final

from fleetwright.verify.envelopes import PAYLOAD_TYPE, parse_envelope
from fleetwright.verify.errors import VerificationError
from fleetwright.verify.keys import PublicKey

NAME: Final = "fleetwright's own Ed25519 (RFC 8032)"

_P: Final = 2**255 - 19
_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
_D: Final = -121665 * pow(121666, _P - 2, _P) % _P
_ROOT_OF_MINUS_ONE: Final = pow(2, (_P - 1) // 4, _P)
_SIGN: Final = 1 << 255

_Point = tuple[int, int, int, int]
"""Extended coordinates X, Y, Z, T of RFC 8032, section 5.1.4."""


def confirms(envelope: bytes, key: PublicKey) -> bool:
    """Return whether the signature of ``key`` on a DSSE envelope is good."""
    try:
        found = parse_envelope(envelope)
    except VerificationError:
        return False
    signature = found.signatures.get(key.key_id, b"")
    kind = PAYLOAD_TYPE.encode()
    # DSSE's pre-authentication encoding, version 1.
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(found.payload), found.payload)
    return is_good(bytes.fromhex(key.public), signature, signed)


def is_good(public: bytes, signature: bytes, message: bytes) -> bool:
    """Return whether 64 bytes are the signature of a key of 32 bytes over a message."""
    if len(public) != 32 or len(signature) != 64:
        return False
    key, commitment = _decoded(public), _decoded(signature[:32])
    scalar = int.from_bytes(signature[32:], "little")
    if key is None or commitment is None or scalar >= _ORDER:
        return False
    digest = hashlib.sha512(signature[:32] + public + message).digest()
    challenge = int.from_bytes(digest, "little") % _ORDER
    return _equal(_times(scalar, _BASE), _add(commitment, _times(challenge, key)))


def _decoded(data: bytes) -> _Point | None:
    """Return the point that 32 bytes stand for (section 5.1.3)."""
    number = int.from_bytes(data, "little")
    y, negative = number & (_SIGN - 1), number >> 255
    x = _x_of(y, negative)
    return None if x is None else (x, y, 1, x * y % _P)


def _x_of(y: int, negative: int) -> int | None:
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, _P - 2, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _ROOT_OF_MINUS_ONE % _P
    if (x * x - square) % _P or (not x and negative):
        return None
    return _P - x if x & 1 != negative else x


def _add(one: _Point, other: _Point) -> _Point:
    a = (one[1] - one[0]) * (other[1] - other[0]) % _P
    b = (one[1] + one[0]) * (other[1] + other[0]) % _P
    c, d = 2 * one[3] * other[3] * _D % _P, 2 * one[2] * other[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % _P, g * h % _P, f * g % _P, e * h % _P)


def _times(scalar: int, point: _Point) -> _Point:
    found = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            found = _add(found, point)
        point = _add(point, point)
        scalar >>= 1
    return found


def _equal(one: _Point, other: _Point) -> bool:
    return not ((one[0] * other[2] - other[0] * one[2]) % _P or (one[1] * other[2] - other[1] * one[2]) % _P)


def _base() -> _Point:
    y = 4 * pow(5, _P - 2, _P) % _P
    x = _x_of(y, 0)
    return (x or 0, y, 1, (x or 0) * y % _P)


_BASE: Final = _base()
