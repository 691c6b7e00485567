"""How simulated agents behave, and how many of each kind a fleet has."""

from __future__ import annotations

import enum
import math
import random
from collections.abc import Mapping, Sequence


class Profile(enum.Enum):
    """Behaviour of one simulated agent."""

    HEALTHY = "healthy"
    """Does what it is asked to."""
    FLAKY = "flaky"
    """Drops its connection at random intervals, and some of its tasks fail."""
    SLOW_READER = "slow-reader"
    """Reads each message late."""
    HUNG = "hung"
    """Accepts work, never ends it, and from then on neither reads nor writes."""
    CLOCK_SKEWED = "clock-skewed"
    """Its clock is off by up to an hour either way."""


def parse_shares(texts: Sequence[str]) -> dict[Profile, float]:
    """Read ``name=share`` items; what is left of 1 is healthy. Raises ValueError naming the item."""
    shares: dict[Profile, float] = {}
    for text in texts:
        name, separator, number = text.partition("=")
        try:
            profile, share = Profile(name), float(number)
        except ValueError:
            separator = ""
            profile, share = Profile.HEALTHY, 0.0
        if not separator or not math.isfinite(share) or not 0 <= share <= 1 or profile in shares:
            names = ", ".join(one.value for one in Profile)
            raise ValueError(
                f"profile {text!r}: expected NAME=SHARE, each name once, with a share from 0 to 1 "
                f"and a name of {names}"
            )
        shares[profile] = share
    total = sum(shares.values())
    if total > 1 + 1e-9:
        raise ValueError(f"profile shares add up to {total:g}: lower them to 1 at most")
    shares[Profile.HEALTHY] = shares.get(Profile.HEALTHY, 0.0) + max(0.0, 1 - total)
    return shares


def assign(shares: Mapping[Profile, float], agents: int, rng: random.Random) -> list[Profile]:
    """Give each of ``agents`` a profile: shares rounded down, the rest healthy, shuffled by ``rng``."""
    profiles: list[Profile] = [
        profile
        for profile in Profile
        if profile is not Profile.HEALTHY
        for _ in range(int(shares.get(profile, 0.0) * agents + 1e-9))
    ]
    profiles += [Profile.HEALTHY] * (agents - len(profiles))
    rng.shuffle(profiles)
    return profiles
