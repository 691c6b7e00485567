"""Presence, labels and field masks."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.agents.rules import (
    MAX_LABELS,
    Editable,
    FieldMaskInvalid,
    HealthLimits,
    LabelsInvalid,
    Presence,
    PresenceReason,
    Sighting,
    changes_presence,
    check_labels,
    edit,
    judge,
)

SECOND = 1_000_000
NOW = 1_700_000_000 * SECOND
LIMITS = HealthLimits(timedelta(seconds=10), timedelta(seconds=30), timedelta(seconds=90))

ONLINE = Sighting(
    agent_id="a",
    epoch=3,
    presence=Presence.ONLINE,
    reason=PresenceReason.SESSION_OPENED,
    since=NOW - 3600 * SECOND,
    last_seen=NOW - 5 * SECOND,
    beat=NOW - 5 * SECOND,
)
STALE = replace(ONLINE, presence=Presence.STALE, reason=PresenceReason.HEARTBEAT_LATE, since=NOW - 4 * SECOND)

presences = st.sampled_from(Presence)
reasons = st.sampled_from(PresenceReason)
times = st.integers(min_value=NOW - 200 * SECOND, max_value=NOW)
sightings = st.builds(
    Sighting,
    agent_id=st.just("a"),
    epoch=st.integers(min_value=0, max_value=9),
    presence=presences,
    reason=reasons,
    since=times,
    last_seen=st.none() | times,
    beat=st.none() | times,
)


def silent(sighting: Sighting, seconds: int) -> Sighting:
    heard = NOW - seconds * SECOND
    return replace(sighting, last_seen=heard, beat=heard if sighting.beat is not None else None)


def test_an_agent_whose_beats_come_in_time_stays_online() -> None:
    assert judge(silent(ONLINE, 30), NOW, LIMITS) is None


def test_late_beats_make_an_agent_stale_and_say_how_late() -> None:
    moved = judge(silent(ONLINE, 34), NOW, LIMITS)
    assert moved is not None
    assert (moved.before, moved.after, moved.reason) == (
        Presence.ONLINE,
        Presence.STALE,
        PresenceReason.HEARTBEAT_LATE,
    )
    assert moved.detail == "no beat for 34 s; interval 10 s"


def test_an_agent_without_a_session_here_is_stale_because_its_server_ended() -> None:
    moved = judge(replace(silent(ONLINE, 31), beat=None), NOW, LIMITS)
    assert moved is not None
    assert moved.reason is PresenceReason.SERVER_ENDED


def test_a_session_that_has_just_opened_is_not_taken_for_one_that_is_gone() -> None:
    assert judge(replace(ONLINE, beat=None, last_seen=NOW - SECOND), NOW, LIMITS) is None


def test_long_silence_makes_a_stale_agent_offline_and_keeps_why() -> None:
    moved = judge(silent(STALE, 95), NOW, LIMITS)
    assert moved is not None
    assert (moved.after, moved.reason) == (Presence.OFFLINE, PresenceReason.SILENT)
    assert moved.detail == "silent for 95 s; it was stale because its beats were late"


def test_after_a_restart_an_agent_has_the_whole_time_to_come_back() -> None:
    gone = replace(STALE, reason=PresenceReason.SERVER_ENDED, beat=None, last_seen=NOW - 9_999 * SECOND)
    assert judge(replace(gone, since=NOW - 90 * SECOND), NOW, LIMITS) is None
    assert judge(replace(gone, since=NOW - 91 * SECOND), NOW, LIMITS) is not None


@pytest.mark.parametrize("presence", [Presence.STALE, Presence.OFFLINE])
def test_a_beat_brings_back_an_agent_whose_beats_were_late(presence: Presence) -> None:
    reason = PresenceReason.SILENT if presence is Presence.OFFLINE else PresenceReason.HEARTBEAT_LATE
    moved = judge(replace(STALE, presence=presence, reason=reason, beat=NOW - SECOND), NOW, LIMITS)
    assert moved is not None
    assert (moved.after, moved.reason) == (Presence.ONLINE, PresenceReason.HEARTBEAT_RESUMED)
    assert moved.detail == "a beat came after 3 s"


def test_a_beat_that_is_late_brings_no_agent_back_though_it_was_heard_of_since() -> None:
    late = replace(STALE, since=NOW - 200 * SECOND, beat=NOW - 100 * SECOND, last_seen=NOW - 20 * SECOND)
    moved = judge(late, NOW, LIMITS)
    assert moved is None or moved.after is not Presence.ONLINE


def test_a_beat_from_before_it_went_stale_brings_no_agent_back() -> None:
    assert judge(replace(STALE, beat=STALE.since), NOW, LIMITS) is None


def test_a_session_that_lived_on_in_a_process_taken_for_gone_counts_without_another_beat() -> None:
    lived = replace(STALE, reason=PresenceReason.SERVER_ENDED, beat=STALE.since - SECOND)
    moved = judge(lived, NOW, LIMITS)
    assert moved is not None
    assert (moved.after, moved.reason) == (Presence.ONLINE, PresenceReason.HEARTBEAT_RESUMED)
    assert judge(replace(lived, beat=None), NOW, LIMITS) is None


@given(sightings)
def test_only_a_beat_in_time_makes_an_agent_online(sighting: Sighting) -> None:
    moved = judge(sighting, NOW, LIMITS)
    if moved is not None and moved.after is Presence.ONLINE:
        assert sighting.beat is not None
        lived_on = (Presence.STALE, PresenceReason.SERVER_ENDED)
        assert sighting.since < sighting.beat or (sighting.presence, sighting.reason) == lived_on
        assert NOW - sighting.beat <= 30 * SECOND
        assert sighting.reason not in (
            PresenceReason.STREAM_LOST,
            PresenceReason.GOODBYE,
            PresenceReason.CERTIFICATE_ENDED,
            PresenceReason.DELETED,
        )


@given(sightings)
def test_the_sweep_moves_step_by_step_and_comes_to_rest(sighting: Sighting) -> None:
    steps = 0
    while (moved := judge(sighting, NOW, LIMITS)) is not None:
        assert (moved.before, moved.after) != (Presence.ONLINE, Presence.OFFLINE)
        assert moved.after is not moved.before
        assert moved.detail
        sighting = replace(sighting, presence=moved.after, reason=moved.reason, since=NOW)
        steps += 1
    assert steps <= 2


@given(presences, reasons, presences, reasons)
def test_a_report_is_applied_once(
    before: Presence, why: PresenceReason, after: Presence, because: PresenceReason
) -> None:
    if changes_presence((before, why), (after, because)):
        assert not changes_presence((after, because), (after, because))


@given(presences, reasons)
def test_who_said_goodbye_is_not_moved_by_its_old_stream(after: Presence, because: PresenceReason) -> None:
    assert not changes_presence((Presence.OFFLINE, PresenceReason.GOODBYE), (after, because))


def test_a_lost_stream_is_a_better_reason_than_late_beats() -> None:
    late, lost = (
        (Presence.STALE, PresenceReason.HEARTBEAT_LATE),
        (Presence.STALE, PresenceReason.STREAM_LOST),
    )
    assert changes_presence(late, lost)
    assert not changes_presence(lost, late)


def test_limits_that_do_not_grow_are_refused() -> None:
    with pytest.raises(ValueError, match="each longer than the one before"):
        HealthLimits(timedelta(seconds=10), timedelta(seconds=90), timedelta(seconds=30))


@pytest.mark.parametrize("key", ["", "Site", "-a", "a-", "a b", "ä", "a" * 64, "a\n"])
def test_a_label_key_out_of_form_is_refused(key: str) -> None:
    with pytest.raises(LabelsInvalid, match="key"):
        check_labels({key: "x"})


@pytest.mark.parametrize("key", ["a", "site", "app.example/name", "a" * 63, "0_9"])
def test_a_label_key_in_form_is_accepted(key: str) -> None:
    check_labels({key: "x" * 253})


def test_too_many_labels_and_too_long_values_are_refused() -> None:
    with pytest.raises(LabelsInvalid, match="65 labels"):
        check_labels({f"k{number}": "" for number in range(MAX_LABELS + 1)})
    with pytest.raises(LabelsInvalid, match="254 characters"):
        check_labels({"k": "x" * 254})


PRESENT = Editable({"site": "berlin", "ring": "1"}, "old")


@pytest.mark.parametrize(
    ("paths", "sent", "result"),
    [
        (["notes"], Editable({"x": "y"}, "new"), Editable(PRESENT.labels, "new")),
        (["labels"], Editable({"x": "y"}, "new"), Editable({"x": "y"}, "old")),
        (["labels.ring"], Editable({"ring": "2"}, ""), Editable({"site": "berlin", "ring": "2"}, "old")),
        (["labels.ring"], Editable({}, ""), Editable({"site": "berlin"}, "old")),
        (["labels.a.b/c"], Editable({"a.b/c": "d"}, ""), Editable({**PRESENT.labels, "a.b/c": "d"}, "old")),
        (["suspected_clone"], Editable({}, ""), PRESENT),
        (["labels.none", "notes"], Editable({}, ""), Editable(PRESENT.labels, "")),
    ],
)
def test_a_mask_changes_what_it_names(paths: list[str], sent: Editable, result: Editable) -> None:
    assert edit(paths, PRESENT, sent) == result


@pytest.mark.parametrize("path", ["presence", "label", "labels.", "labels.A", "*", "", "notes.x"])
def test_a_mask_that_names_what_cannot_be_written_is_refused(path: str) -> None:
    with pytest.raises(FieldMaskInvalid):
        edit([path], PRESENT, PRESENT)


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(FieldMaskInvalid, match="empty"):
        edit([], PRESENT, PRESENT)


def test_a_suspicion_can_be_taken_away_and_not_raised() -> None:
    suspected = Editable(PRESENT.labels, PRESENT.notes, suspected_clone=True)
    assert edit(["suspected_clone"], suspected, PRESENT) == PRESENT
    assert edit(["notes"], suspected, PRESENT) == suspected
    with pytest.raises(FieldMaskInvalid, match="only be cleared"):
        edit(["suspected_clone"], PRESENT, suspected)
