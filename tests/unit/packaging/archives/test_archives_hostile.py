"""Whatever the bytes: a refusal of ours or an outcome, and nothing outside the folder."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.packaging.archives.errors import BadArtefact
from controlplane.packaging.archives.intake import inspect
from controlplane.packaging.archives.limits import Limits
from controlplane.packaging.archives.names import (
    JAVA,
    PORTABLE,
    POSIX,
    NameRule,
    checked_path,
    checked_target,
)
from tests.unit.packaging.archives.good import (
    GOOD,
    METADATA,
    deb,
    elf,
    jar,
    mach_o,
    made_tar,
    made_zip,
    npm,
    pe,
    sdist,
    universal,
    wheel,
    wheel_files,
)
from tests.unit.packaging.archives.raw import Block, Packed, pax, tarred, zipped
from tests.unit.packaging.archives.reading import tree

ROOT = Path(__file__).parents[4]
DEBIAN = Path("/usr/bin/python3")
SEEDS = {
    **GOOD,
    "tar": ("a.tar", made_tar({"a/b": b"hello", "c" * 120: b"x"})),
    "long": ("a.tar", tarred(pax(path="a/b"), Block(b"x", b"y"), Block(b"l", type=b"2", target=b"a/b"))),
    "stored": ("a.zip", zipped(Packed(method=0), Packed(b"l", b"a.txt", unix_mode=0o120777))),
    "windows": ("a.exe", pe()),
    "mac": ("a", universal(mach_o(), mach_o(7))),
    "small": ("a", elf(40, bits=1)),
}
SMALL = Limits(total_bytes=1 << 22, file_bytes=1 << 21, members=200)
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def outcome(name: str, data: bytes) -> None:
    """Inspect; anything but an outcome or our refusal fails the test, and so does a file outside."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "upload").write_bytes(data)
        (folder / "into").mkdir()
        (folder / "nested").mkdir()
        try:
            inspect(folder / "upload", name, folder / "into", SMALL, nested_into=folder / "nested")
        except BadArtefact:
            assert tree(folder) == {"into": b"", "nested": b"", "upload": data}
        else:
            assert {path.name for path in folder.iterdir()} == {"into", "nested", "upload"}
            links = [path for path in (folder / "into").rglob("*") if path.is_symlink()]
            assert all(stays(folder / "into", link) for link in links)


def stays(root: Path, link: Path) -> bool:
    """Whether a link, followed to its end, is still below the root; one that leads in a circle is."""
    try:
        return link.resolve().is_relative_to(root.resolve())
    except RuntimeError:
        return True


change = st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8))
changes = st.lists(change, min_size=1, max_size=6)


@pytest.mark.parametrize("kind", SEEDS)
@FUZZ
@given(changes=changes)
def test_changed_bytes_never_surprise(kind: str, changes: list[tuple[float, bytes]]) -> None:
    name, seed = SEEDS[kind]
    data = bytearray(seed)
    for place, piece in changes:
        at = int(place * len(data))
        data[at : at + len(piece)] = piece
    outcome(name, bytes(data))


@pytest.mark.parametrize("kind", SEEDS)
@FUZZ
@given(begin=st.floats(0, 1), end=st.floats(0, 1), insert=st.binary(max_size=40))
def test_bytes_cut_out_and_put_in_never_surprise(kind: str, begin: float, end: float, insert: bytes) -> None:
    name, seed = SEEDS[kind]
    first, last = sorted((int(begin * len(seed)), int(end * len(seed))))
    outcome(name, seed[:first] + insert + seed[last:])


@FUZZ
@given(data=st.binary(max_size=2000), head=st.sampled_from([seed[1][:600] for seed in SEEDS.values()]))
def test_garbage_behind_a_good_head_never_surprises(data: bytes, head: bytes) -> None:
    outcome("tool", head + data)


metadata = st.one_of(
    st.binary(max_size=300),
    st.text(st.sampled_from('Name: Version=1.0\n\r "{}[],/x'), max_size=200).map(str.encode),
)


@pytest.mark.parametrize("kind", ["METADATA", "WHEEL", "PKG-INFO", "npm", "manifest", "control"])
@FUZZ
@given(raw=metadata)
def test_metadata_of_any_bytes_never_surprises(kind: str, raw: bytes) -> None:
    makers: Mapping[str, Callable[[], bytes]] = {
        "METADATA": lambda: wheel(METADATA=METADATA + raw),
        "WHEEL": lambda: wheel(WHEEL=raw),
        "PKG-INFO": lambda: sdist(raw),
        "npm": lambda: npm(raw=raw),
        "manifest": lambda: jar(raw),
        "control": lambda: deb(raw, ending=""),
    }
    outcome("tool", makers[kind]())


@FUZZ
@given(raw=metadata)
def test_a_record_of_any_bytes_never_surprises(raw: bytes) -> None:
    files = wheel_files()
    outcome(
        "tool", made_zip({path: data + raw if "RECORD" in path else data for path, data in files.items()})
    )


names = st.lists(
    st.sampled_from(["a", "A", "b", "..", ".", "", "/", "\\", "C:", "x" * 300, "\0", "é", "e\u0301", "link"]),
    max_size=5,
).map("/".join)


MODES = {"file": 0o100644, "link": 0o120777}


@FUZZ
@given(entries=st.lists(st.tuples(names, st.sampled_from(["file", "link"]), names), min_size=1, max_size=5))
def test_names_and_links_of_a_zip_never_lead_out(entries: list[tuple[str, str, str]]) -> None:
    packed = [
        Packed(name.encode(), target.encode(), flags=0x800, unix_mode=MODES[kind])
        for name, kind, target in entries
    ]
    outcome("a.zip", zipped(*packed))


@FUZZ
@given(entries=st.lists(st.tuples(names, st.sampled_from("0125"), names), min_size=1, max_size=6))
def test_names_and_links_of_a_tar_never_lead_out(entries: list[tuple[str, str, str]]) -> None:
    blocks = []
    for name, kind, target in entries:
        if 0 < len(name) < 100 > len(target.encode()):
            blocks.append(Block(name.encode(), type=kind.encode(), target=target.encode()))
    outcome("a.tar", tarred(*blocks))


parts = st.lists(st.sampled_from(["a", "b", "l", "..", "."]), max_size=6).map("/".join)


@FUZZ
@given(links=st.lists(st.tuples(parts, parts), min_size=1, max_size=8))
def test_no_chain_of_links_leads_out(links: list[tuple[str, str]]) -> None:
    blocks = [
        Block(f"{index}/l/{name}".encode(), type=b"2", target=target.encode())
        for index, (name, target) in enumerate(links)
    ]
    outcome("a.tar", tarred(*blocks))


@given(name=st.text(max_size=50), rule=st.sampled_from([PORTABLE, JAVA, POSIX]))
def test_a_checked_path_is_relative_and_goes_nowhere_but_down(name: str, rule: NameRule) -> None:
    try:
        path = checked_path(name, rule, Limits())
    except BadArtefact:
        return
    assert not path.startswith("/")
    assert "\0" not in path
    assert all(part not in ("", ".", "..") for part in path.split("/")) or path == ""
    assert checked_path(path, rule, Limits()) == path


@given(path=parts, target=st.text("ab./\\:", max_size=20), rule=st.sampled_from([PORTABLE, JAVA, POSIX]))
def test_a_checked_target_never_climbs_above_the_root(path: str, target: str, rule: NameRule) -> None:
    try:
        place = checked_path(path, rule, Limits())
        found = checked_target(place, target, rule, Limits())
    except BadArtefact:
        return
    climb = found.split("/").count("..")
    assert climb <= place.count("/")
    assert not found.startswith("/")
    assert ".." not in found.split("/")[climb:]


RUN = """
import json, sys
from pathlib import Path
from controlplane.packaging.archives.errors import BadArtefact
from controlplane.packaging.archives.intake import inspect

def run(upload, name, into):
    try:
        return json.loads(inspect(Path(upload), name, Path(into)).as_json())
    except BadArtefact as error:
        return error.as_json()

print(json.dumps([run(*one) for one in json.load(sys.stdin)]))
print(sorted(sys.modules), file=sys.stderr)
"""


@pytest.mark.skipif(not DEBIAN.exists(), reason="Debian's own Python is not here")
def test_debians_own_python_comes_to_the_same_outcomes(tmp_path: Path) -> None:
    hostile = [
        ("a.zip", zipped(Packed(b"../evil"))),
        ("a.tar", tarred(Block(b"l", type=b"2", target=b"/etc"), Block(b"l/x", b"y"))),
        ("a.tar", tarred(Block(b"d", type=b"3"))),
        ("a.tar", tarred(Block(b"here", type=b"2", target=b"there"), Block(b"here/evil", b"x"))),
        ("a.zip", zipped(Packed(b"a"), Packed(b"A"))),
        ("a.zip", zipped(Packed(b"a"), Packed(b"b", offset=0))),
        ("tool", elf() + zipped(Packed())),
    ]
    jobs = []
    for number, (name, data) in enumerate([*GOOD.values(), *hostile]):
        (tmp_path / f"upload{number}").write_bytes(data)
        jobs.append([str(tmp_path / f"upload{number}"), name, str(tmp_path / f"into{number}")])
    theirs = answers(DEBIAN, jobs)
    ours = answers(Path(sys.executable), jobs)
    assert theirs == ours
    assert [one["type"] for one in theirs[: len(GOOD)]] == list(GOOD)
    assert [one["code"] for one in theirs[len(GOOD) :]] == [
        "PATH_ESCAPES",
        "LINK_ESCAPES",
        "DEVICE_NODE",
        "LINK_IN_PATH",
        "DUPLICATE_ENTRY",
        "OVERLAPPING_ENTRIES",
        "POLYGLOT",
    ]


def answers(python: Path, jobs: list[list[str]]) -> list[dict[str, str]]:
    for _, _, into in jobs:
        folder = Path(into)
        subprocess.run(["rm", "-rf", into], check=True)
        folder.mkdir()
    command = [str(python), "-I", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{RUN}"]
    text = json.dumps(jobs)
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True, timeout=60)
    loaded = set(ast.literal_eval(done.stderr.splitlines()[-1]))
    assert not loaded & {"grpc", "sqlalchemy", "cryptography", "tarfile", "zipfile", "structlog", "pydantic"}
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found
