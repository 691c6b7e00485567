"""Exports on disk: finding them, and reading what nobody vouches for."""

from __future__ import annotations

import base64
import json
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from controlplane.packaging.advisories import exports, osv, reading
from controlplane.packaging.advisories.exports import Export, ExportError, find, members, read


def record(identifier: str, name: str = "foo", ecosystem: str = "PyPI", **changes: Any) -> bytes:
    events = [{"introduced": "0"}, {"fixed": "1.0"}]
    whole = {
        "id": identifier,
        "modified": "2024-05-01T00:00:00Z",
        "aliases": [f"CVE-2024-{int(identifier.rpartition('-')[2]) + 1_000}"],
        "affected": [
            {
                "package": {"ecosystem": ecosystem, "name": name},
                "ranges": [{"type": "ECOSYSTEM", "events": events}],
            }
        ],
        **changes,
    }
    return json.dumps(whole).encode()


def make_zip(path: Path, *contents: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in contents:
            archive.writestr(name, content)
    return path


def all_of(export: Export) -> list[tuple[str, bytes]]:
    return list(read(export, members(export)))


def test_a_zip_is_named_after_its_folder_or_by_who_imports(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "PyPI" / "all.zip", ("X-1.json", record("X-1")))
    assert find(path) == find(tmp_path / "PyPI") == find(tmp_path) == [Export("PyPI", path)]
    moved = make_zip(tmp_path / "downloads" / "x.zip", ("X-1.json", record("X-1")))
    assert find(moved, "npm") == [Export("npm", moved)]
    with pytest.raises(ExportError, match="say which ecosystem"):
        find(moved)


def test_a_folder_of_folders_has_an_export_for_each_ecosystem(tmp_path: Path) -> None:
    make_zip(tmp_path / "Go" / "all.zip", ("GO-1.json", b"{}"))
    (tmp_path / "PyPI").mkdir()
    (tmp_path / "PyPI" / "X-1.json").write_bytes(record("X-1"))
    (tmp_path / "notes").mkdir()
    assert [(one.ecosystem, one.is_zip) for one in find(tmp_path)] == [("Go", True), ("PyPI", False)]
    assert [one.ecosystem for one in find(tmp_path, "PyPI")] == ["PyPI"]


@pytest.mark.parametrize("made", ["", "folder"])
def test_where_there_is_no_export_the_error_says_what_one_is(tmp_path: Path, made: str) -> None:
    path = tmp_path / "x"
    if made:
        path.mkdir()
    with pytest.raises(ExportError, match=r"give a zip or a folder|has neither all\.zip"):
        find(path)


def test_zip_and_folder_give_the_same_records(tmp_path: Path) -> None:
    contents = [(f"X-{number}.json", record(f"X-{number}")) for number in range(3)]
    path = make_zip(tmp_path / "PyPI" / "all.zip", *contents, ("README.md", b"no record"))
    folder = tmp_path / "unpacked"
    folder.mkdir()
    for name, content in contents:
        (folder / name).write_bytes(content)
    assert all_of(Export("PyPI", path)) == all_of(Export("PyPI", folder)) == contents


def refused(export: Export, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        all_of(export)


def test_bytes_that_are_no_zip_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "all.zip"
    for content in (b"", b"PK", b"hello" * 100, b"PK\x05\x06" + b"\xff" * 18):
        path.write_bytes(content)
        refused(Export("PyPI", path), "is no zip|cannot be read")


def test_a_zip_that_was_cut_is_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "all.zip", *((f"X-{number}.json", os.urandom(500)) for number in range(5)))
    whole = path.read_bytes()
    for end in range(0, len(whole), 97):
        path.write_bytes(whole[:end])
        refused(Export("PyPI", path), "all.zip")


def test_a_member_that_is_damaged_is_named(tmp_path: Path) -> None:
    path = make_zip(
        tmp_path / "all.zip", ("X-1.json", b"a" * 100), ("X-2.json", b"b" * 100), method=zipfile.ZIP_STORED
    )
    path.write_bytes(path.read_bytes().replace(b"b" * 100, b"b" * 99 + b"c"))
    refused(Export("PyPI", path), "X-2.json: is damaged")


def test_a_member_of_a_huge_declared_size_is_refused_unread(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "all.zip", ("X-1.json", b"{}"))
    content = path.read_bytes()
    at = content.rindex(b"PK\x01\x02") + 24
    path.write_bytes(content[:at] + struct.pack("<I", 2**31) + content[at + 4 :])
    refused(Export("PyPI", path), "X-1.json: has 2147483648 bytes")


def test_a_member_that_unpacks_to_more_than_it_declares_is_refused(tmp_path: Path) -> None:
    bomb = b"0" * (osv.MAX_RECORD + 10)
    path = make_zip(tmp_path / "all.zip", ("X-1.json", bomb))
    content = path.read_bytes()
    for signature, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        at = content.index(signature) + offset
        content = content[:at] + struct.pack("<I", 100) + content[at + 4 :]
    path.write_bytes(content)
    refused(Export("PyPI", path), "X-1.json: is damaged|X-1.json: has more than")


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "all.zip", ("X-1.json", b"{}"))
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        content[content.index(signature) + offset] |= 1
    path.write_bytes(bytes(content))
    refused(Export("PyPI", path), "X-1.json: cannot be read: .*encrypted")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "all.zip", ("X-1.json", b"{}"), ("X-1.json", b"{ }"))
    refused(Export("PyPI", path), "X-1.json is there twice")


def test_a_link_in_a_folder_is_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(record("X-1"))
    folder = tmp_path / "PyPI"
    folder.mkdir()
    (folder / "X-1.json").symlink_to(secret)
    refused(Export("PyPI", folder), "X-1.json: cannot be read")


def test_a_pipe_in_a_folder_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "X-1.json")
    refused(Export("PyPI", tmp_path), "X-1.json: is no regular file")


def test_a_folder_in_the_place_of_a_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "X-1.json").mkdir()
    refused(Export("PyPI", tmp_path), "X-1.json")


def test_more_records_than_an_export_may_have_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "MAX_MEMBERS", 1)
    refused(
        Export("PyPI", make_zip(tmp_path / "all.zip", ("a.json", b""), ("b.json", b""))),
        "has 2 records; 1 are",
    )
    monkeypatch.setattr(exports, "MAX_MEMBERS", 2)
    monkeypatch.setattr(exports, "MAX_TOTAL", 3)
    refused(
        Export("PyPI", make_zip(tmp_path / "c.zip", ("a.json", b"12"), ("b.json", b"34"))),
        "more than 3 bytes",
    )


def test_a_reader_says_all_of_its_part_and_that_it_is_whole(tmp_path: Path) -> None:
    contents = [(f"X-{number}.json", record(f"X-{number}")) for number in range(5)]
    export = Export("PyPI", make_zip(tmp_path / "all.zip", *contents))
    told = [list(reading.lines(export, part, 2)) for part in range(2)]
    assert [one[0] for one in told] == [{"members": 3}, {"members": 2}]
    assert [one[-1] for one in told] == [{"done": 3}, {"done": 2}]
    ids = sorted(line["id"] for one in told for line in one[1:-1])
    assert ids == [f"X-{number}" for number in range(5)]


def test_a_reader_names_the_member_and_the_field_that_are_bad(tmp_path: Path) -> None:
    export = Export("PyPI", make_zip(tmp_path / "all.zip", ("X-1.json", record("X-1", aliases=7))))
    with pytest.raises(ExportError, match=r"all.zip: X-1.json: aliases: is a int"):
        list(reading.lines(export, 0, 1))


def test_what_a_reader_says_of_a_record() -> None:
    content = record("X-1")
    told = reading.line("X-1.json", content, "PyPI")
    assert json.loads(json.dumps(told)) == told
    assert told["aliases"] == ["CVE-2024-1001"]
    assert [row[:2] for row in told["packages"]] == [["PyPI", "foo"]]
    assert zlib.decompress(base64.b64decode(told["document"])) == content
    assert reading.line("X-1.json", content, "npm")["packages"] == []
