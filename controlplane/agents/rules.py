"""What decides about an agent: its presence, its nonces, its labels.

Invariants:

* Only a new session, or a beat after beats had been late, brings an agent ONLINE.
* Nothing but a new session brings back one that said Goodbye, whose certificate ended
  or that was deleted; the first reason for being OFFLINE stays.
* Of two copies of an agent that both come back, at least one shows a nonce that is
  used up; an agent that lost the answer to its last Hello does not.

Instants and durations are whole microseconds.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum

MAX_LABELS = 64
MAX_LABEL_KEY = 63
MAX_LABEL_VALUE = 253
MAX_NOTES_BYTES = 4096
MAX_GROUPS = 64
MAX_GROUP_NAME = 63

_WRITABLE = "labels, labels.<key>, groups, notes or suspected_clone"
_LABEL_KEY = re.compile(r"[a-z0-9]([a-z0-9._/-]*[a-z0-9])?")
_SECOND = 1_000_000


class Presence(IntEnum):
    """The contract's ``Presence``, with its numbers."""

    ONLINE = 1
    STALE = 2
    OFFLINE = 3


class PresenceReason(IntEnum):
    """The contract's ``PresenceReason``, with its numbers."""

    NEVER_CONNECTED = 1
    SESSION_OPENED = 2
    HEARTBEAT_RESUMED = 3
    HEARTBEAT_LATE = 4
    STREAM_LOST = 5
    SILENT = 6
    GOODBYE = 7
    SERVER_ENDED = 8
    CERTIFICATE_ENDED = 9
    DELETED = 10


@dataclass(frozen=True, slots=True)
class HealthLimits:
    """After which silence an agent is STALE, and after which OFFLINE.

    ``interval`` is the one between two beats; it only stands in the words for people.
    Raises ``ValueError`` where the three do not grow in this order.
    """

    interval: timedelta
    stale_after: timedelta
    offline_after: timedelta

    def __post_init__(self) -> None:
        if not timedelta() < self.interval < self.stale_after < self.offline_after:
            raise ValueError(
                f"health limits: interval {self.interval}, stale_after {self.stale_after} and offline_after "
                f"{self.offline_after} must be positive and each longer than the one before"
            )


@dataclass(frozen=True, slots=True)
class Sighting:
    """What is known of one agent when its health is judged.

    ``beat`` is the last beat of its newest session, live in this process, None where that has none;
    ``last_seen`` is what the database knows of beats and sessions.
    """

    agent_id: str
    epoch: int
    presence: Presence
    reason: PresenceReason
    since: int
    last_seen: int | None
    beat: int | None


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of presence that the health sweep made."""

    agent_id: str
    epoch: int
    before: Presence
    after: Presence
    reason: PresenceReason
    detail: str


def changes_presence(before: tuple[Presence, PresenceReason], after: tuple[Presence, PresenceReason]) -> bool:
    """Return whether a session's report ``after`` changes an agent that is ``before``.

    What is ONLINE or OFFLINE stays so for its first reason; what is STALE takes another
    reason until its stream is known to have ended. A lost stream says nothing new of an
    agent that is OFFLINE already.
    """
    if after[0] is before[0]:
        return after[0] is Presence.STALE and after[1] is not before[1] and _may_resume(before[1])
    if before[0] is Presence.OFFLINE:
        return after[0] is Presence.ONLINE and _may_resume(before[1])
    return after[0] is not Presence.ONLINE or _may_resume(before[1])


def _may_resume(reason: PresenceReason) -> bool:
    # The stream of these is not known to have ended, so a beat on it counts.
    return reason in (PresenceReason.HEARTBEAT_LATE, PresenceReason.SILENT, PresenceReason.SERVER_ENDED)


def judge(sighting: Sighting, now: int, limits: HealthLimits) -> Transition | None:
    """Return what silence, or its end, makes of an agent; None where it stays as it is."""
    silence = now - _heard(sighting)
    stale_after = limits.stale_after // _US
    late = silence > stale_after
    if sighting.presence is Presence.ONLINE:
        return _lapse(sighting, silence, limits) if late else None
    # The beat itself must be in time: that the agent was heard of later, by another session, is no beat.
    if sighting.beat is not None and now - sighting.beat <= stale_after and _counts(sighting):
        return _resumed(sighting, sighting.beat)
    if sighting.presence is Presence.STALE and silence > limits.offline_after // _US:
        detail = f"silent for {_words(silence)}; it was stale because {_why(sighting.reason)}"
        return _transition(sighting, Presence.OFFLINE, PresenceReason.SILENT, detail)
    return None


_US = timedelta(microseconds=1)

_WHY = {
    PresenceReason.HEARTBEAT_LATE: "its beats were late",
    PresenceReason.STREAM_LOST: "its heartbeat stream ended without a Goodbye",
    PresenceReason.SERVER_ENDED: "the server process that held its session ended",
}


def _heard(sighting: Sighting) -> int:
    """Return when the agent was last heard of, or when its silence began to count.

    Late beats count from the last beat. Where a stream or the server ended, from then: the
    agent could not beat, and must have the time to come back.
    """
    heard = max(sighting.last_seen or 0, sighting.beat or 0)
    if sighting.presence is Presence.STALE and sighting.reason is PresenceReason.HEARTBEAT_LATE:
        return heard or sighting.since
    return max(heard, sighting.since) if sighting.beat is None else heard


def _lapse(sighting: Sighting, silence: int, limits: HealthLimits) -> Transition:
    if sighting.beat is None:
        detail = f"no session of it is known here; last heard of {_words(silence)} ago"
        return _transition(sighting, Presence.STALE, PresenceReason.SERVER_ENDED, detail)
    interval = _words(limits.interval // _US)
    detail = f"no beat for {_words(silence)}; interval {interval}"
    return _transition(sighting, Presence.STALE, PresenceReason.HEARTBEAT_LATE, detail)


def _transition(sighting: Sighting, after: Presence, reason: PresenceReason, detail: str) -> Transition:
    return Transition(sighting.agent_id, sighting.epoch, sighting.presence, after, reason, detail)


def _counts(sighting: Sighting) -> bool:
    """Return whether the last beat says something of an agent that is not ONLINE."""
    return (sighting.beat or 0) > sighting.since or _lived_on(sighting)


def _lived_on(sighting: Sighting) -> bool:
    # Its process was cut off from the others, and not from its agents.
    return (sighting.presence, sighting.reason) == (Presence.STALE, PresenceReason.SERVER_ENDED)


def _resumed(sighting: Sighting, beat: int) -> Transition | None:
    if not _may_resume(sighting.reason):
        return None
    if beat > sighting.since:
        detail = f"a beat came after {_words(beat - sighting.since)}"
    else:
        detail = "its session had lived on, in a process that was taken for gone"
    return _transition(sighting, Presence.ONLINE, PresenceReason.HEARTBEAT_RESUMED, detail)


def _why(reason: PresenceReason) -> str:
    return _WHY.get(reason, "its session ended")


def _words(micros: int) -> str:
    seconds = round(micros / _SECOND)
    return f"{seconds} s" if seconds < 600 else f"{round(seconds / 60)} min"


@dataclass(frozen=True, slots=True)
class Nonces:
    """The nonce that an agent was last handed, and the one that it showed then.

    ``current`` is None where it was handed none since its enrolment.
    """

    current: bytes | None
    previous: bytes | None


def rotate_nonce(known: Nonces, shown: bytes, handed: bytes) -> tuple[Nonces, bool]:
    """Return the nonces after a Hello that ``shown`` one and was ``handed`` the next; and the suspicion.

    Good are: any where none was handed yet; the current one; and its predecessor, from an
    agent that ended before it stored the current one. In the last case the current one is
    void: who shows it later is a copy, or has one. Any other is used up: it comes from
    a copy or a restored image. The suspicion changes nothing else: the agent that showed
    it goes on from the nonce that it is handed now.
    """
    suspected = known.current is not None and shown not in (known.current, known.previous)
    return Nonces(current=handed, previous=shown), suspected


BUCKETS = 10_000
"""Places among which agents are spread: a percentage is cut to a hundredth."""


def bucket(agent_id: str) -> int:
    """Return an agent's place, 0 to 9,999, by its id alone."""
    return _spread(agent_id)


def first_bucket(seed: int) -> int:
    """Return the place at which the choice of a percentage begins, by its seed."""
    return _spread(f"seed/{seed}")


def _spread(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % BUCKETS


class LabelsInvalid(ValueError):
    """Labels that break a limit; the message says which one and how."""


class GroupsInvalid(ValueError):
    """Groups that break a limit; the message says which one and how."""


class FieldMaskInvalid(ValueError):
    """A field mask that names a field that does not exist or may not be written."""


def check_labels(labels: Mapping[str, str]) -> None:
    """Raise ``LabelsInvalid`` unless ``labels`` keep the contract's limits."""
    if len(labels) > MAX_LABELS:
        raise LabelsInvalid(f"{len(labels)} labels; an agent has at most {MAX_LABELS}: remove some first")
    for key, value in labels.items():
        if len(key) > MAX_LABEL_KEY or not _LABEL_KEY.fullmatch(key):
            raise LabelsInvalid(
                f"key {key[: MAX_LABEL_KEY + 1]!r} is not 1 to {MAX_LABEL_KEY} of a-z, 0-9, '.', '_', '/' "
                "and '-' with a letter or digit first and last"
            )
        if len(value) > MAX_LABEL_VALUE:
            raise LabelsInvalid(
                f"the value of {key!r} has {len(value)} characters; at most {MAX_LABEL_VALUE}"
            )


@dataclass(frozen=True, slots=True)
class Editable:
    """What administrators may change of an agent; ``suspected_clone`` only from true to false."""

    labels: Mapping[str, str]
    notes: str
    suspected_clone: bool = False
    groups: tuple[str, ...] = ()


def check_groups(groups: Sequence[str]) -> tuple[str, ...]:
    """Return ``groups`` in order, each once.

    Raises ``GroupsInvalid`` unless they keep the contract's limits.
    """
    names = sorted(set(groups))
    if len(names) > MAX_GROUPS:
        raise GroupsInvalid(f"{len(names)} groups; an agent is in at most {MAX_GROUPS}: leave some first")
    for name in names:
        if len(name) > MAX_GROUP_NAME or not _LABEL_KEY.fullmatch(name):
            raise GroupsInvalid(
                f"{name[: MAX_GROUP_NAME + 1]!r} is not 1 to {MAX_GROUP_NAME} of a-z, 0-9, '.', '_', '/' "
                "and '-' with a letter or digit first and last"
            )
    return tuple(names)


def edit(paths: Sequence[str], present: Editable, sent: Editable) -> Editable:
    """Return what an update with the field mask ``paths`` (AIP-161) makes of ``present``.

    ``labels`` replaces all of them, ``labels.<key>`` sets one or removes it where ``sent``
    has none of that key, ``groups`` and ``notes`` replace all, ``suspected_clone`` takes
    the suspicion away, which ``sent`` may not raise. Raises ``FieldMaskInvalid``,
    ``LabelsInvalid`` and ``GroupsInvalid``.
    """
    if not paths:
        raise FieldMaskInvalid(f"it is empty; name {_WRITABLE}")
    labels, notes, groups = dict(present.labels), present.notes, present.groups
    suspected = present.suspected_clone
    for path in paths:
        if path == "labels":
            labels = dict(sent.labels)
        elif path == "notes":
            notes = sent.notes
        elif path == "suspected_clone":
            if sent.suspected_clone:
                raise FieldMaskInvalid("'suspected_clone' can only be cleared; send it as false")
            suspected = False
        elif path == "groups":
            groups = sent.groups
        elif path.startswith("labels."):
            _edit_label(labels, path.removeprefix("labels."), sent.labels)
        else:
            raise FieldMaskInvalid(f"{path!r} cannot be written; name {_WRITABLE}")
    check_labels(labels)
    return Editable(labels, notes, suspected, check_groups(groups))


def _edit_label(labels: dict[str, str], key: str, sent: Mapping[str, str]) -> None:
    if not _LABEL_KEY.fullmatch(key):
        raise FieldMaskInvalid(f"'labels.{key}' names no label; a key is letters, digits and '._/-'")
    if key in sent:
        labels[key] = sent[key]
    else:
        labels.pop(key, None)
