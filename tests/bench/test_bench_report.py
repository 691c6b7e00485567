from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bench import report
from bench.figures import BUDGETS, Line, Window, line
from bench.profiles import Profile, count
from bench.report import Results

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
MACHINE: dict[str, str | int | float] = {
    "load_before": 0.2,
    "cores": 2,
    "memory_gb": 24.0,
    "python": "3.11.2",
    "grpcio": "1.85.1",
    "uvloop": "0.23.0",
    "system": "Linux x86_64",
}
PROFILE = Profile(
    {"event loop": 3.0, "gRPC's own threads": 1.0},
    10,
    {"json/decoder: decode": 7, "controlplane/a: f.<locals>.<lambda>": 3},
    {"controlplane/a: f.<locals>.<lambda>": 10, "controlplane/cli/main: main": 10, "json/decoder: decode": 7},
)


def results(*lines: Line) -> Results:
    return Results(MACHINE, "2026-01-01", [one.json() for one in lines], {"growth": PROFILE})


def missed(name: str) -> Line:
    one = line(BUDGETS[name], [Window(1_000.0, 100.0), Window(1_000.0, 300.0)])
    assert one.met is False
    return replace(one, profile=report.profile_anchor("growth"))


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = results(missed("connects"))
    written.write(tmp_path / "results.json")
    read = report.read(tmp_path / "results.json")
    assert read is not None
    assert report.figure_rows(read) == report.figure_rows(written)
    assert read.profiles == written.profiles


def test_without_a_run_there_are_no_results(tmp_path: Path) -> None:
    assert report.read(tmp_path / "results.json") is None


def test_what_a_figure_holds_for_and_where_it_was_taken_stand_beside_it() -> None:
    noted = results(replace(missed("connects"), note="few agents"))
    assert report.figure_rows(noted)[0][0].endswith(" (few agents)")
    assert report.origin(noted) == (
        "Taken of one process on SQLite on 2026-01-01: 2 cores, 24 GB, "
        "Linux x86_64, Python 3.11.2, grpcio 1.85.1; the "
        "machine's load before the run began was 0.2."
    )


def test_a_row_says_what_was_measured_and_names_the_profile_of_a_miss() -> None:
    [row] = report.figure_rows(results(missed("connects")))
    assert row[0].startswith("`connects`: connects for a CPU second")
    assert row[1:] == (
        "1,000/s",
        "200/s",
        "0.2 (0.1 to 0.3)",
        "at least 0.5 times the yardstick",
        "no: [profile](docs/performance.md#profile-of-growth)",
    )


def test_a_miss_without_a_profile_is_a_miss_all_the_same() -> None:
    [row] = report.figure_rows(results(line(BUDGETS["connects"], [Window(10.0, 1.0)])))
    assert row[-1] == "no"


def test_a_figure_without_a_yardstick_leaves_its_cells_empty() -> None:
    [row] = report.figure_rows(results(line(BUDGETS["dispatch-p50"], [Window(None, 7.5)])))
    assert row[1:] == ("", "7.5 ms", "", "at most 10 ms", "yes")


def test_a_profile_lists_what_holds_the_lock_and_then_what_of_ours_leads_to_it() -> None:
    assert report.profile_rows(PROFILE) == [
        ("`json/decoder: decode`", "70%", "70%"),
        ("`controlplane/a: f.lambda`", "30%", "100%"),
    ]
    assert report.threads_in_words(PROFILE) == "event loop 75%, gRPC's own threads 25%"


def test_a_profile_without_samples_says_why() -> None:
    refused = replace(PROFILE, samples=0, alone={}, whole={}, problem="py-spy could not sample: not allowed")
    assert report.profile_rows(refused) == []
    assert report.summary(refused).endswith("py-spy could not sample: not allowed.")


def test_samples_are_counted_by_function_and_once_for_a_recursion() -> None:
    alone, whole = count(["run (a.py:1);work (b/c.py:2);work (b/c.py:9) 3", "run (a.py:4) 2"])
    assert alone == {"b/c: work": 3, "a: run": 2}
    assert whole == {"a: run": 5, "b/c: work": 3}


def table() -> list[list[str]]:
    """Return the cells of the table of figures as the README shows it, without its header."""
    begin = README.index("<!-- table bench: scripts/doc_tables.py -->")
    lines = README[begin : README.index("<!-- end of bench -->")].splitlines()
    return [[cell.strip() for cell in text.strip("|").split("|")] for text in lines if text.startswith("| `")]


def test_the_readme_has_a_row_for_every_figure_of_the_last_run_that_was_written() -> None:
    rows, last = table(), report.read()
    assert last is not None
    written = [line["name"] for line in last.lines]
    assert [row[0].split("`")[1] for row in rows] == written
    assert written == [name for name in by_output() if name in written]
    for row in rows:
        budget = BUDGETS[row[0].split("`")[1]]
        assert len(row) == len(report.FIGURE_HEADER)
        assert row[4] == budget.words
        assert bool(row[5]) is bool(budget.words)


def by_output() -> list[str]:
    """Return the names of all budgets in the order in which a whole run prints them."""
    measures = list(dict.fromkeys(budget.measure for budget in BUDGETS.values()))
    return sorted(BUDGETS, key=lambda name: measures.index(BUDGETS[name].measure))
