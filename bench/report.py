"""The results of a run, as they are kept, and the tables that the documents show of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.figures import BUDGETS, Line
from bench.profiles import Profile

RESULTS = Path(__file__).with_name("results.json")
"""The last whole run on SQLite that was written; the documents' tables are rendered from it."""

PROFILES = "docs/performance.md"
_ALONE, _WHOLE = 10, 14
_OURS = ("controlplane/", "fleetwright/")


@dataclass(frozen=True, slots=True)
class Results:
    """A whole run: on which machine, when, its lines, and a profile of each measure that missed."""

    machine: Mapping[str, str | int | float]
    date: str
    lines: Sequence[Mapping[str, Any]]
    profiles: Mapping[str, Profile]
    of: str = "one process on SQLite"
    """What the servers stood on."""

    def write(self, path: Path = RESULTS) -> None:
        """Write them, so that whoever sees the file sees all of it."""
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps(asdict(self), indent=1) + "\n")
        beside.replace(path)


def results_of(backing: str) -> Path:
    """Return the file of the last whole run that was written of a ``Backing.name``."""
    return RESULTS if backing == "sqlite" else RESULTS.with_name(f"results-{backing}.json")


def read(path: Path = RESULTS) -> Results | None:
    """Read what ``write`` wrote; None where nothing was written yet."""
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    content["profiles"] = {name: Profile(**profile) for name, profile in content["profiles"].items()}
    return Results(**content)


def missed(lines: Iterable[Line]) -> bool:
    """Return whether a budget was missed."""
    return any(line.met is False for line in lines)


def profile_anchor(measure: str) -> str:
    """Return where the profile of a measure stands."""
    return f"{PROFILES}#profile-of-{measure}"


def figure_rows(results: Results) -> list[tuple[str, ...]]:
    """Return a row for each line: what, yardstick, value, ratio, budget, met."""
    return [_figure_row(line) for line in results.lines]


FIGURE_HEADER = ("what", "yardstick", "value", "ratio", "budget", "met")


def _figure_row(line: Mapping[str, Any]) -> tuple[str, ...]:
    budget = BUDGETS[line["name"]]
    ratio = f"{line['ratio']:g}" if line["ratio"] is not None else ""
    if line.get("ratio_range"):
        least, greatest = line["ratio_range"]
        ratio += f" ({least:g} to {greatest:g})"
    note = f" ({line['note']})" if line.get("note") else ""
    return (
        f"`{budget.name}`: {budget.what}{note}",
        _with_unit(line["yardstick"], budget.unit),
        _with_unit(line["value"], budget.unit),
        ratio,
        line["budget"],
        _met(line),
    )


def _met(line: Mapping[str, Any]) -> str:
    if line["met"] is None:
        return ""
    if line["met"]:
        return "yes"
    return f"no: [profile]({line['profile']})" if line.get("profile") else "no"


def _with_unit(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    number = f"{value:,.0f}" if value >= 1_000 else f"{value:g}"
    return f"{number}/s" if unit == "1/s" else f"{number} {unit}"


PROFILE_HEADER = ("function", "alone", "with what it calls")


def profile_rows(profile: Profile) -> list[tuple[str, ...]]:
    """Return the functions that hold the lock most by themselves, then those of ours that lead to most."""
    first = list(profile.alone)[:_ALONE]
    ours = [name for name in profile.whole if _is_ours(name) and name not in first][:_WHOLE]
    return [
        (
            f"`{_plain(name)}`",
            _share(profile.alone.get(name, 0), profile),
            _share(profile.whole[name], profile),
        )
        for name in first + ours
    ]


def _profile_row(name: str, profile: Profile) -> tuple[str, ...]:
    alone, whole = profile.alone.get(name, 0), profile.whole[name]
    return f"`{_plain(name)}`", _share(alone, profile), _share(whole, profile)


def origin(results: Results) -> str:
    """Return where and when the figures were taken."""
    machine = results.machine
    durability = next((line["durability"] for line in results.lines if line.get("durability")), "")
    return (
        f"Taken of {results.of} on {results.date}{f', {durability}' if durability else ''}: "
        f"{machine['cores']} cores, {machine['memory_gb']:g} GB, {machine['system']}, "
        f"Python {machine['python']}, grpcio {machine['grpcio']}; the machine's load "
        f"before the run began was {machine['load_before']:g}."
    )


def summary(profile: Profile) -> str:
    """Return what stands above a profile's table."""
    words = f"CPU time by threads: {threads_in_words(profile)}."
    return f"{words} {profile.problem}." if profile.problem else words


def threads_in_words(profile: Profile) -> str:
    """Return how the CPU time is spread over the kinds of threads."""
    total = sum(profile.threads.values()) or 1.0
    return ", ".join(f"{kind} {spent / total:.0%}" for kind, spent in profile.threads.items())


def _plain(name: str) -> str:
    """Return a name without angle brackets, which a table would escape."""
    return name.replace("<locals>.", "").replace("<", "").replace(">", "")


def _is_ours(name: str) -> bool:
    # What starts the server leads to everything and tells nothing.
    return name.startswith(_OURS) and not name.startswith("controlplane/cli/")


def _share(samples: int, profile: Profile) -> str:
    return f"{samples / max(1, profile.samples):.0%}"
