"""A repository found file by file, and one that was put back from a backup."""

from __future__ import annotations

from controlplane.trust.tuf.publishing import leap, publish, released
from controlplane.trust.tuf.state import RepositoryState, load, missing
from tests.unit.verify.evidence_world import EXPIRIES, NOW, PACKAGE, PATH, ceremony, target

KEYS = ceremony().online.keys
FIRST = ceremony().online.state


def second() -> RepositoryState:
    return publish(FIRST, "stable", [target(PATH, PACKAGE)], KEYS, NOW, EXPIRIES).state


def test_the_current_files_are_found_among_all_by_asking_for_what_is_missing() -> None:
    there = {**FIRST.files(), **second().files()}
    found = {name: content for name, content in there.items() if name.endswith(".root.json")}
    asked: list[str] = []
    while names := missing(found):
        asked += names
        found |= {name: there[name] for name in names}
    assert asked[:2] == ["timestamp.json", "2.snapshot.json"]
    assert sorted(asked[2:]) == ["1.beta.json", "1.targets.json", "2.stable.json"]
    assert load(found) == second()


def test_a_leap_is_above_what_was_seen_and_releases_the_same() -> None:
    state = second()
    after = leap(
        state, {"timestamp": 40, "snapshot": 30, "stable": 20, "unknown": 9}, KEYS, NOW, EXPIRIES
    ).state
    assert after.versions == {
        "root": 1, "targets": 1, "stable": 21, "beta": 2, "snapshot": 31, "timestamp": 41,
    }  # fmt: skip
    assert released(after, "stable") == released(state, "stable")
    assert load({**state.files(), **after.files()}) == after


def test_a_leap_never_goes_back() -> None:
    state = second()
    after = leap(state, {"timestamp": 1, "snapshot": 1, "stable": 1}, KEYS, NOW, EXPIRIES).state
    assert after.versions["timestamp"] == state.versions["timestamp"] + 1
    assert after.versions["stable"] == state.versions["stable"] + 1
