"""What Trivy is told of records and packages, and what is believed of its answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controlplane.packaging.advisories.engines import trivy
from controlplane.packaging.advisories.engines.constraints import ALWAYS, fix_of_system, of_language
from controlplane.packaging.advisories.engines.records import Asking, EngineError, Question
from controlplane.packaging.advisories.records import Affected, Event, Range

FOO = Question("PyPI", "foo", "0.9")
BASH = Question("AlmaLinux:8", "bash", "1:4.4-1.el8")
ALIVE = b"!alive !alive\n"


def block(*events: str, versions: tuple[str, ...] = (), kind: str = "ECOSYSTEM") -> Affected:
    pairs = [Event(*one.split(" ")) for one in events]
    return Affected("PyPI", "foo", ranges=[Range(kind, pairs)] if pairs else [], versions=versions)


def sheet_of(question: Question, **known: Affected) -> trivy.Sheet:
    asking = Asking((), {question: [(name.replace("_", "-"), [one]) for name, one in known.items()]})
    (sheet,) = trivy.sheets(asking)
    return sheet


# --- constraints


@pytest.mark.parametrize(
    ("events", "texts"),
    [
        (("introduced 0", "fixed 1.0"), ["<1.0"]),
        (("introduced 1.0", "fixed 1.2"), [">=1.0, <1.2"]),
        (("introduced 1.0", "last_affected 1.2"), [">=1.0, <=1.2"]),
        (("introduced 1.0",), [">=1.0"]),
        (("introduced 0",), [ALWAYS]),
        (("introduced 0", "fixed 1.0", "fixed 2.0"), ["<1.0"]),
        (("introduced 0", "introduced 2.0", "fixed 1.0", "fixed 2.5"), ["<1.0", ">=2.0, <2.5"]),
        (("introduced 2.0", "fixed 2.5", "introduced 0", "fixed 1.0"), ["<1.0", ">=2.0, <2.5"]),
        (("introduced 0", "introduced 0.5", "fixed 1.0"), ["<1.0"]),
    ],
)
def test_a_range_is_said_as_its_intervals(events: tuple[str, ...], texts: list[str]) -> None:
    assert of_language("PyPI", [block(*events)]) == (texts, True)


def test_listed_versions_and_ranges_of_all_blocks_are_said() -> None:
    said = of_language(
        "PyPI", [block("introduced 0", "fixed 1.0", versions=("1.5",)), block(versions=("2.0",))]
    )
    assert said == (["=1.5", "<1.0", "=2.0"], True)


@pytest.mark.parametrize(
    ("one", "texts"),
    [
        (block("introduced 0", "limit 2.0"), []),
        (block("fixed 2.0"), []),
        (block("introduced 0", "fixed not/a/version"), []),
        (block("introduced 0", "fixed 1.0||>0"), []),
        (block("introduced abc", "fixed 1.0", versions=("0.5",)), ["=0.5"]),
        (block(versions=("0.5", "1.0,<9")), ["=0.5"]),
        (block(versions=("0.5", "2004d-legacy")), ["=0.5"]),
        (block("introduced a", "fixed b", kind="GIT"), []),
    ],
)
def test_what_cannot_be_said_is_left_out_and_then_silence_means_nothing(
    one: Affected, texts: list[str]
) -> None:
    assert of_language("PyPI", [one]) == (texts, False)


@pytest.mark.parametrize(
    ("blocks", "fix"),
    [
        ([block("introduced 0", "fixed 1.0-1")], "1.0-1"),
        ([block("introduced 0", "fixed 1.0-1"), block("introduced 0", "fixed 1.0-1")], "1.0-1"),
        ([block("introduced 0")], ""),
        ([block("introduced 0", "fixed 1.0-1"), block("introduced 0", "fixed 2.0-1")], None),
        ([block("introduced 1.0", "fixed 1.0-1")], None),
        ([block("introduced 0", "last_affected 1.0-1")], None),
        ([block("introduced 0", "fixed 1.0-1", versions=("3.0",))], None),
        ([block(versions=("3.0",))], None),
        ([], None),
    ],
)
def test_of_a_distribution_only_one_fix_can_be_said(blocks: list[Affected], fix: str | None) -> None:
    assert fix_of_system("Debian:12", blocks) == fix


# --- what is asked


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        (FOO, True),
        (Question("Debian:12", "openssl", "1"), True),
        (Question("Debian", "openssl", "1"), False),
        (Question("Ubuntu:22.04", "openssl", "1"), False),
        (Question("Rocky Linux:9", "bash", "1"), False),
        (Question("AlmaLinux:8", "npm", "1-1.module_el8.1"), False),
    ],
)
def test_only_that_is_asked_for_which_trivy_has_rules(question: Question, asked: bool) -> None:
    assert trivy.is_asked(question) is asked


def test_each_release_of_a_distribution_is_asked_about_by_itself() -> None:
    known = {
        one: [("X-1", [block("introduced 0", "fixed 1.0")])]
        for one in (FOO, BASH, BASH._replace(ecosystem="AlmaLinux:9"), Question("Go", "a/b", "v1.0.0"))
    }
    assert [(one.system, len(one.questions)) for one in trivy.sheets(Asking((), known))] == [
        ("", 2),
        ("AlmaLinux:8", 1),
        ("AlmaLinux:9", 1),
    ]


def components(question: Question) -> list[dict[str, Any]]:
    document = json.loads(trivy.document_of(sheet_of(question, X=block("introduced 0", "fixed 9"))))
    found: list[dict[str, Any]] = document["components"]
    return found


def test_a_document_names_packages_as_purls_do() -> None:
    assert components(Question("npm", "@scope/name", "1.0.0"))[0] == {
        "type": "library", "bom-ref": "c0", "purl": "pkg:npm/%40scope/name@1.0.0", "group": "@scope",
        "name": "name", "version": "1.0.0",
    }  # fmt: skip
    assert components(Question("Maven", "org.a:b", "1"))[0]["purl"] == "pkg:maven/org.a/b@1"
    assert components(BASH)[0]["purl"] == "pkg:rpm/bash@4.4-1.el8?epoch=1"
    assert components(BASH)[1] == {
        "type": "operating-system", "bom-ref": "system", "name": "alma", "version": "8",
    }  # fmt: skip


# --- what is believed


def test_an_answer_is_read_by_advisory_and_opposite() -> None:
    fixed = block("introduced 0", "fixed 1.0")
    sheet = sheet_of(FOO, X_1=fixed, X_2=fixed, X_3=fixed, X_4=block("introduced 0"))
    assert trivy.read(sheet, ALIVE + b"c0 X-1\nc0 !X-2\nc0 X-4\n") == {
        FOO: {"X-1": True, "X-2": False, "X-4": True}
    }


def test_a_package_of_a_distribution_that_was_passed_over_is_not_judged() -> None:
    fixed = block("introduced 0", "fixed 1.0")
    sheet = sheet_of(BASH, A_1=fixed, A_2=fixed)
    assert trivy.read(sheet, ALIVE + b"c0 A-1\nc0 !\n") == {BASH: {"A-1": True, "A-2": False}}
    assert trivy.read(sheet, ALIVE) == {BASH: {}}


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (b"", "its answer is none"),
        (b"c0 X-1\n", "its answer is none"),
        (ALIVE + b"c1 X-1\n", "not in the document"),
        (ALIVE + b"c-1 X-1\n", "not in the document"),
        (ALIVE + b"x X-1\n", "not in the document"),
        (ALIVE + b"c0 Y-1\n", "not about foo"),
        (ALIVE + b"c0 X-1\nc0 !X-1\n", "both that X-1"),
        (ALIVE + b"No issues found\n", "not asked for"),
        (ALIVE + b"c0 \xff\n", "not about foo"),
        (ALIVE + b"c0 " + b"X" * 1_000 + b"\n", "not asked for"),
    ],
)
def test_what_cannot_be_an_answer_is_none(output: bytes, said: str) -> None:
    sheet = sheet_of(FOO, X_1=block("introduced 0", "fixed 1.0"))
    with pytest.raises(EngineError, match=said):
        trivy.read(sheet, output)
