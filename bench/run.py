"""One run: the chosen measures in turn, a line for each budget, and a profile where one is missed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from bench import profiles, report
from bench.children import BenchFailed, Children
from bench.figures import BUDGETS, Line, line
from bench.measures import MEASURES, Found
from bench.profiles import Profile
from bench.stage import Stage

_PROFILED_SECONDS = 6


def by_measure(names: Sequence[str], database: str) -> dict[str, list[str]]:
    """Return the chosen budgets, all of a ``database`` for none chosen, by the measure that they come from.

    Raises ``ValueError`` for a name that no budget has, and for a budget of another database.
    """
    for name in names:
        if name not in BUDGETS:
            raise ValueError(f"{name}: no budget has this name; choose of {', '.join(BUDGETS)}")
        if BUDGETS[name].on not in ("", database):
            raise ValueError(f"{name}: is measured on {BUDGETS[name].on} alone")
    chosen: dict[str, list[str]] = {}
    for name, budget in BUDGETS.items():
        if name in names or (not names and budget.on in ("", database)):
            chosen.setdefault(budget.measure, []).append(name)
    return chosen


def measure(
    stage: Stage, children: Children, name: str, budgets: Sequence[str], *, always_profile: bool
) -> tuple[list[Line], Profile | None]:
    """Take one measure and end what it started; returns its lines, and a profile for a miss.

    Raises ``BenchFailed``.
    """
    found = MEASURES[name](stage)
    lines = [
        line(
            BUDGETS[budget],
            found.windows[budget],
            quick=stage.quick,
            note=found.notes.get(budget, ""),
            void=budget in found.void,
        )
        for budget in budgets
    ]
    if found.product is not None:
        stage.say(f"durability: {found.product.durability}")
        lines = [replace(one, durability=found.product.durability) for one in lines]
    profile = None
    if always_profile or report.missed(lines):
        profile = _profiled(stage, found)
    if profile is not None:
        where = report.profile_anchor(name)
        lines = [replace(one, profile=where) if one.met is False else one for one in lines]
    children.kill_all()
    return lines, profile


def _profiled(stage: Stage, found: Found) -> Profile | None:
    if found.product is None or found.again is None:
        return None
    seconds = stage.size(_PROFILED_SECONDS, 1)
    stage.say(f"profiling for {seconds} s")
    found.again(seconds)
    profile = profiles.take(found.product.server, seconds, stage.folder / "samples")
    found.product.load.hear()
    if not sum(profile.threads.values()):
        raise BenchFailed("the profile found no CPU time: the server did nothing")
    return profile


def table(profile: Profile, show: Callable[[str], None]) -> None:
    """Show a profile to people."""
    show(report.summary(profile))
    for function, alone, whole in report.profile_rows(profile):
        show(f"  {alone:>5} {whole:>5}  {function.strip('`')}")
