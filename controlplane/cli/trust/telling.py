"""What a document of an offline role says, in lines."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from controlplane.trust.tuf.drafting import Told


def lines_of(told: Told, now: datetime) -> Iterator[str]:
    """Return what a holder of a key reads before signing."""
    left = told.expires - now
    when = f"in {left.days} days" if left.total_seconds() > 0 else "ENDED"
    yield f"{told.role} version {told.version}, until {told.expires:%Y-%m-%d %H:%M:%SZ} ({when})"
    for name, (threshold, key_ids) in told.roles.items():
        keys = ", ".join(key_id[:16] for key_id in key_ids)
        yield f"  {name}: {threshold} of {len(key_ids)} sign: {keys}"
    for note in told.notes:
        yield f"  {note}"
    if told.role == "root":
        yield f"  signed by its own keys: {_ids(told.signed_by)}"
        if told.unknown_signers:
            # They count where the root before this one lists them, which a document alone does not tell.
            yield f"  signed by keys that it does not list: {_ids(told.unknown_signers)}"
    else:
        yield f"  signed by: {_ids(told.unknown_signers)}"


def _ids(key_ids: tuple[str, ...]) -> str:
    return ", ".join(key_id[:16] for key_id in key_ids) or "none yet"
