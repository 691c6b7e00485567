"""The manifest of a package: strict reading, deterministic writing, and what its parts say."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from fleetwright.manifest import (
    CommandDetect,
    CopyTree,
    DpkgDetect,
    DpkgInstall,
    DpkgRemove,
    FileDetect,
    Link,
    Manifest,
    ManifestError,
    PackagedFile,
    Platform,
    RemoveTree,
    Rollback,
    Unlink,
    dump,
    installed_files,
    matches,
    parse,
)
from fleetwright.manifest.fields import check_links, normal_path
from hypothesis import given
from hypothesis import strategies as st

ONE, TWO = "1" * 64, "2" * 64


def manifest(**changes: Any) -> Manifest:
    parts: dict[str, Any] = {
        "name": "tool",
        "version": "1.0",
        "type": "archive",
        "platforms": (Platform("linux", "amd64"),),
        "install": (CopyTree("top", "."), Link("tool", "bin/tool")),
        "uninstall": (Unlink("tool"), RemoveTree(".")),
        "detect": FileDetect("bin/tool", ONE),
        "rollback": Rollback("switch_back", 1),
        "disk_bytes": 8192,
        "files": (PackagedFile("top/bin/tool", ONE, 10, 0o755), PackagedFile("top/readme", TWO, 3, 0o644)),
        "source_sha256": "a" * 64,
    }
    return Manifest(**{**parts, **changes})


def document(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(dump(manifest()))
    return {**found, **changes}


def refusal(document: object) -> ManifestError:
    with pytest.raises(ManifestError) as caught:
        parse(document if isinstance(document, bytes) else json.dumps(document).encode())
    return caught.value


def test_a_manifest_reads_back_as_it_was_written() -> None:
    assert parse(dump(manifest())) == manifest()


def test_a_manifest_is_written_the_same_each_time() -> None:
    assert dump(manifest()) == dump(parse(dump(manifest())))


def test_a_command_that_detects_reads_back() -> None:
    detect = CommandDetect(("bin/tool", "--version"), 0, "tool *", 10)
    assert parse(dump(manifest(detect=detect))).detect == detect


def test_a_package_for_dpkg_reads_back_with_links_that_dpkg_makes() -> None:
    files = (PackagedFile("usr/bin/x", ONE, 0, 0o755, "/etc/alternatives/x"),)
    deb = manifest(
        type="deb",
        install=(DpkgInstall("tool"),),
        uninstall=(DpkgRemove("tool"),),
        detect=DpkgDetect("tool", "1:1.0-2"),
        rollback=Rollback("reinstall", 1),
        files=files,
    )
    assert parse(dump(deb)) == deb


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"schema": "fleetwright.package/v2"}, "schema"),
        ({"name": "../evil"}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a/../b"}, "name"),
        ({"name": "a" * 215}, "name"),
        ({"version": "1.0/2"}, "version"),
        ({"version": 1}, "version"),
        ({"type": "rpm"}, "type"),
        ({"platforms": []}, "platforms"),
        ({"platforms": [{"os": "linux", "architecture": "AMD64"}]}, "platforms[0].architecture"),
        ({"platforms": [{"os": "linux"}]}, "platforms[0].architecture"),
        ({"install": [{"step": "shell", "script": "rm -rf /"}]}, "install[0].step"),
        (
            {"install": [{"step": "copy_tree", "source": "top", "destination": "/etc"}]},
            "install[0].destination",
        ),
        ({"install": [{"step": "copy_tree", "source": "..", "destination": "."}]}, "install[0].source"),
        ({"install": [{"step": "copy_tree", "source": "none", "destination": "."}]}, "install[0].source"),
        ({"install": [{"step": "link", "name": "a/b", "target": "bin/tool"}]}, "install[0].name"),
        ({"install": [{"step": "dpkg_install", "package": "tool"}]}, "install"),
        ({"uninstall": [{"step": "remove_tree", "path": "../other"}]}, "uninstall[0].path"),
        ({"detect": {"kind": "file", "path": "bin/none", "sha256": ONE}}, "detect.path"),
        ({"detect": {"kind": "file", "path": "bin/tool", "sha256": TWO}}, "detect.sha256"),
        ({"detect": {"kind": "file", "path": "bin/tool", "sha256": ONE, "more": 1}}, "detect.more"),
        ({"rollback": {"strategy": "hope", "keep_versions": 1}}, "rollback.strategy"),
        ({"rollback": {"strategy": "none", "keep_versions": -1}}, "rollback.keep_versions"),
        ({"disk_bytes": True}, "disk_bytes"),
        ({"disk_bytes": 2**63}, "disk_bytes"),
        ({"files": []}, "files"),
        ({"source_sha256": "A" * 64}, "source_sha256"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_what_is_wrong_is_named_by_its_field(changes: dict[str, Any], field: str) -> None:
    assert refusal(document(**changes)).field == field


@pytest.mark.parametrize("missing", sorted(document()))
def test_each_field_must_be_there(missing: str) -> None:
    assert refusal({name: value for name, value in document().items() if name != missing}).field == missing


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b"{", "is not JSON"),
        (b'{"a":1,"a":2}', "occurs twice"),
        (b'{"a":NaN}', "only integers"),
        (b'{"a":1e999}', "only integers"),
        (b"\xff", "is not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' + b"9" * 5_000 + b"}", "is not JSON"),
        (b" " * (16 * 2**20 + 1), "at most"),
    ],
    ids=["empty", "list", "cut", "twice", "nan", "fraction", "latin", "deep", "digits", "huge"],
)
def test_what_is_no_manifest_at_all_is_told_apart(text: bytes, said: str) -> None:
    assert said in str(refusal(text))


BAD_PATHS = [
    "",
    "/a",
    "../a",
    "a/../b",
    "a//b",
    "./a",
    "a/",
    "C:/a",
    "c:a",
    "a\\b",
    "a\0b",
    "a\nb",
    "x" * 256,
    "é" * 128,
]


@pytest.mark.parametrize("path", BAD_PATHS)
def test_a_path_that_could_leave_its_folder_is_refused(path: str) -> None:
    file = {"path": path, "sha256": ONE, "size": 1, "mode": 420}
    assert refusal(document(files=[file])).field == "files[0].path"


def test_half_of_a_surrogate_pair_in_a_path_is_refused() -> None:
    text = json.dumps(document()).replace("top/readme", "top/\\ud800").encode()
    assert "surrogate" in str(refusal(text))


@pytest.mark.parametrize(
    "paths", [("a", "a"), ("a", "a/b"), ("a/b", "a/b/c/d")], ids=["twice", "file as folder", "deeper"]
)
def test_one_place_is_never_two_files(paths: tuple[str, ...]) -> None:
    files = [{"path": path, "sha256": ONE, "size": 1, "mode": 420} for path in paths]
    assert refusal(document(files=files)).field == "files"


def test_files_must_be_sorted() -> None:
    files = document()["files"]
    assert "sorted" in str(refusal(document(files=list(reversed(files)))))


@pytest.mark.parametrize("target", ["../../x", "/etc/passwd", "a/../../../x", "..", "./x", "a//b", "C:/x"])
def test_a_link_that_could_lead_out_is_refused(target: str) -> None:
    files = [
        {"path": "top/bin/tool", "sha256": ONE, "size": 1, "mode": 493},
        {"path": "up", "sha256": TWO, "size": 0, "mode": 493, "link_target": target},
    ]
    assert refusal(document(files=files)).field.startswith("files")


def test_a_link_that_leads_out_only_where_it_is_installed_is_refused() -> None:
    inner = PackagedFile("top/deep/link", TWO, 0, 0o755, "../../readme")
    files = (inner, PackagedFile("top/readme", ONE, 1, 0o644))
    parts = {"files": files, "install": (CopyTree("top/deep", "."), CopyTree("top", "x"))}
    with pytest.raises(ManifestError, match="out of the package"):
        dump(manifest(**parts, detect=FileDetect("x/readme", ONE)))


def test_two_steps_cannot_put_different_files_in_one_place() -> None:
    files = (PackagedFile("a/x", ONE, 1, 0o644), PackagedFile("b/x", TWO, 1, 0o644))
    steps = (CopyTree("a", "."), CopyTree("b", "."))
    with pytest.raises(ManifestError, match="another file is copied"):
        dump(manifest(files=files, install=steps, detect=FileDetect("x", ONE)))


def test_a_link_to_what_no_step_installs_is_refused() -> None:
    with pytest.raises(ManifestError, match="installed by no step"):
        dump(manifest(install=(CopyTree("top", "."), Link("tool", "bin/other"))))


def test_a_command_outside_of_the_package_cannot_detect_it() -> None:
    with pytest.raises(ManifestError, match=r"detect\.arguments\[0\]"):
        dump(manifest(detect=CommandDetect(("/usr/bin/true",), 0, "", 1)))


def test_installed_files_are_named_below_the_prefix() -> None:
    assert set(installed_files(manifest())) == {"bin/tool", "readme"}


def test_the_folder_of_a_version_is_one_safe_part_of_a_path() -> None:
    scoped = manifest(name="@scope/tool", version="1!2.0+x")
    assert scoped.folder == "@scope%2Ftool_1!2.0+x"
    assert "/" not in manifest(name="group:tool", version="1:2").folder


@pytest.mark.parametrize(
    ("pattern", "output", "expected"),
    [
        ("", "anything", True),
        ("tool 1.0", " tool 1.0\n", True),
        ("tool 1.0", "tool 1.0.1", False),
        ("tool *", "tool 1.0", True),
        ("*1.0", "tool 1.0", True),
        ("tool*1.0*", "tool 1.0 (x)", True),
        ("ab*ba", "aba", False),
        ("a*b*c", "a-b-c", True),
        ("a*b*c", "a-c-b", False),
        ("*", "", True),
    ],
)
def test_a_pattern_matches_with_stars_alone(pattern: str, output: str, expected: bool) -> None:
    assert matches(pattern, output) is expected


@given(st.text(alphabet="ab*", max_size=8), st.text(alphabet="ab", max_size=12))
def test_a_pattern_matches_as_the_regular_expression_of_its_stars_would(pattern: str, output: str) -> None:
    import re

    expression = ".*".join(re.escape(part) for part in pattern.split("*"))
    assert matches(pattern, output) is (not pattern or re.fullmatch(expression, output) is not None)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(sorted(document())), inner, max_size=4)
        ),
        max_leaves=12,
    )
)
def test_garbage_is_refused_and_never_anything_else(garbage: object) -> None:
    refusal(garbage)


@given(
    st.sampled_from(sorted(document())),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=6),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=6), inner, max_size=2),
        max_leaves=6,
    ),
)
def test_a_field_of_another_kind_is_refused_or_read_to_the_same(field: str, value: object) -> None:
    text = json.dumps(document(**{field: value})).encode()
    try:
        found = parse(text)
    except ManifestError:
        return
    assert parse(dump(found)) == found


_PARTS = st.sampled_from(["a", "b", "..", ".", "l"])


@given(
    st.dictionaries(
        st.lists(st.sampled_from("abl"), min_size=1, max_size=3).map("/".join),
        st.lists(_PARTS, min_size=1, max_size=4).map("/".join),
        max_size=4,
    )
)
def test_links_that_are_allowed_never_lead_out_however_they_are_followed(links: dict[str, str]) -> None:
    # A tree in which every folder exists; a link below another one is refused by another check.
    folders = {path.rpartition("/")[0] for path in links}
    if any(folder == path or folder.startswith(f"{path}/") for folder in folders for path in links):
        return
    try:
        check_links(links, "files")
    except ManifestError:
        return
    for path in links:
        assert _resolved(path, links) is not None


def _resolved(path: str, links: dict[str, str]) -> list[str] | None:
    """Follow a path as a kernel does; None where it leaves the root."""
    place: list[str] = []
    waiting = path.split("/")
    for _ in range(200):
        if not waiting:
            return place
        part = waiting.pop(0)
        if part == "..":
            if not place:
                return None
            place.pop()
        elif part != ".":
            target = links.get("/".join([*place, part]))
            if target is None:
                place.append(part)
            else:
                waiting = target.split("/") + waiting
    return place


@given(st.text(alphabet="a./\\:C\0é", max_size=12))
def test_a_path_that_is_allowed_stays_where_it_is(path: str) -> None:
    try:
        normal_path(path, "path")
    except ManifestError:
        return
    assert not path.startswith("/")
    assert ".." not in path.split("/")
    assert "\\" not in path


def test_every_kind_of_step_is_written_with_its_word() -> None:
    words: Callable[[Any], list[str]] = lambda steps: [step["step"] for step in steps]  # noqa: E731
    assert words(document()["install"]) == ["copy_tree", "link"]
    assert words(document()["uninstall"]) == ["unlink", "remove_tree"]
