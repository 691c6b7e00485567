"""Zips: what is read, and every way in which one can lie."""

from __future__ import annotations

import bz2
import io
import lzma
import stat
import struct
import zipfile
import zlib
from pathlib import Path

import pytest

from controlplane.packaging.archives.errors import Code
from controlplane.packaging.archives.limits import Limits
from tests.unit.packaging.archives.good import made_zip
from tests.unit.packaging.archives.raw import Packed, as_zip64, zipped
from tests.unit.packaging.archives.reading import inspected, refused, tree

NAME = "tool-1.0.zip"
ZEROS = 40 * 1024 * 1024


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=str
)
def test_each_compression_is_read(tmp_path: Path, method: int) -> None:
    content = bytes(range(256)) * 3000
    found = inspected(tmp_path, NAME, made_zip({"a/b.bin": content, "empty": b""}, method))
    assert [entry.path for entry in found.files] == ["a/b.bin", "empty"]
    assert (tmp_path / "into/a/b.bin").read_bytes() == content


def test_a_zip_that_was_written_to_a_stream_is_read(tmp_path: Path) -> None:
    class Stream(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def seek(self, *_: int) -> int:
            raise OSError

        def tell(self) -> int:
            raise OSError

    out = Stream()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b"one" * 99)
        archive.writestr("b", b"two")
    assert len(inspected(tmp_path, NAME, out.getvalue()).files) == 2


def test_zip64_is_read(tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive, archive.open("a", "w", force_zip64=True) as member:
        member.write(b"hello")
    assert inspected(tmp_path, NAME, out.getvalue()).files[0].size == 5


def test_the_records_of_zip64_are_read(tmp_path: Path) -> None:
    assert inspected(tmp_path, NAME, as_zip64(zipped(Packed()))).files[0].path == "a.txt"


def test_unix_modes_are_kept_without_the_bits_that_give_rights(tmp_path: Path) -> None:
    found = inspected(tmp_path, NAME, zipped(Packed(b"run", unix_mode=stat.S_IFREG | 0o6755)))
    assert found.files[0].mode == 0o755
    assert stat.S_IMODE((tmp_path / "into/run").stat().st_mode) == 0o755


@pytest.mark.parametrize("mode", [0, 0o100644, 0o40755, 0o177777], ids=oct)
def test_a_folder_is_one_by_its_name_however_it_is_marked(tmp_path: Path, mode: int) -> None:
    found = inspected(
        tmp_path, NAME, zipped(Packed(b"META-INF/", b"", unix_mode=mode), Packed(b"META-INF/a"))
    )
    assert [entry.path for entry in found.files] == ["META-INF/a"]


def test_links_within_the_root_are_made(tmp_path: Path) -> None:
    link = Packed(b"bin/link", b"../lib/x", unix_mode=stat.S_IFLNK | 0o777)
    found = inspected(tmp_path, NAME, zipped(Packed(b"lib/x"), link))
    links = {entry.path: entry.link_target for entry in found.files}
    assert links == {"bin/link": "../lib/x", "lib/x": ""}
    assert (tmp_path / "into/bin/link").read_bytes() == b"hello"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        (b"../evil", Code.PATH_ESCAPES),
        (b"a/../../evil", Code.PATH_ESCAPES),
        (b"/etc/evil", Code.PATH_ESCAPES),
        (b"C:\\evil", Code.PATH_ESCAPES),
        (b"c:evil", Code.PATH_ESCAPES),
        (b"..\\evil", Code.PATH_ESCAPES),
        (b"\\\\host\\share", Code.PATH_ESCAPES),
        (b"a\\b", Code.NAME_NOT_PORTABLE),
        (b"a/C:/b", Code.NAME_NOT_PORTABLE),
        (b"good.txt\0.exe", Code.NUL_IN_NAME),
        (b"bell\x07", Code.NAME_NOT_PORTABLE),
        (b"two\nlines", Code.NAME_NOT_PORTABLE),
        ("gpj\u202e.exe".encode(), Code.NAME_NOT_PORTABLE),
        (b"dot.", Code.NAME_NOT_PORTABLE),
        (b"space ", Code.NAME_NOT_PORTABLE),
        (b"dot./x", Code.NAME_NOT_PORTABLE),
        (b"x" * 256, Code.NAME_TOO_LONG),
        (b"x/" * 600 + b"x", Code.NAME_TOO_LONG),
        (b"x/" * 70 + b"x", Code.PATH_TOO_DEEP),
        (b"\xff\xfe", Code.NAME_NOT_PORTABLE),
        (b"", Code.NAME_NOT_PORTABLE),
        (b"./.", Code.NAME_NOT_PORTABLE),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: bytes, code: Code) -> None:
    assert refused(tmp_path, NAME, zipped(Packed(b"first"), Packed(name, flags=0x800))).code is code


def test_a_name_without_a_declared_encoding_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, NAME, zipped(Packed("é".encode(), host=0))).code is Code.NAME_NOT_PORTABLE


def test_a_name_of_unix_is_in_utf_8_without_saying_so(tmp_path: Path) -> None:
    assert inspected(tmp_path, NAME, zipped(Packed("é".encode()))).files[0].path == "é"


def test_a_name_of_unix_in_another_encoding_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, NAME, zipped(Packed(b"\xe9"))).code is Code.NAME_NOT_PORTABLE


def test_a_unicode_name_beside_the_plain_one_is_read(tmp_path: Path) -> None:
    entry = Packed(b"\x82", extra=unicode_path(b"\x82", "é"))
    assert inspected(tmp_path, NAME, zipped(entry)).files[0].path == "é"


def unicode_path(raw: bytes, name: str) -> bytes:
    body = b"\1" + struct.pack("<L", zlib.crc32(raw)) + name.encode()
    return struct.pack("<HH", 0x7075, len(body)) + body


@pytest.mark.parametrize(
    "names",
    [(b"a", b"a"), (b"a", b"A"), (b"a/b", b"A/c"), (b"a", b"./a"), (b"a", b"a/b"), (b"a/b", b"a")],
    ids=str,
)
def test_a_name_that_comes_twice_is_refused(tmp_path: Path, names: tuple[bytes, bytes]) -> None:
    error = refused(tmp_path, NAME, zipped(*(Packed(name) for name in names)))
    assert error.code is Code.DUPLICATE_ENTRY


def test_names_that_differ_in_their_normalisation_alone_are_refused(tmp_path: Path) -> None:
    entries = (Packed("é".encode(), flags=0x800), Packed("E\u0301".encode(), flags=0x800))
    assert refused(tmp_path, NAME, zipped(*entries)).code is Code.DUPLICATE_ENTRY


@pytest.mark.parametrize(
    "target", ["/etc/passwd", "../up", "..", "down/../../up", "C:\\x", "a\\b", "sub/../x"], ids=str
)
def test_a_link_that_may_lead_out_is_refused(tmp_path: Path, target: str) -> None:
    entry = Packed(b"link", target.encode(), unix_mode=stat.S_IFLNK | 0o777)
    assert refused(tmp_path, NAME, zipped(entry)).code is Code.LINK_ESCAPES


def test_a_file_that_is_written_through_a_link_is_refused(tmp_path: Path) -> None:
    link = Packed(b"here", b"there", unix_mode=stat.S_IFLNK | 0o777)
    error = refused(tmp_path, NAME, zipped(Packed(b"there/x"), link, Packed(b"here/evil")))
    assert error.code is Code.LINK_IN_PATH


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK], ids=oct)
def test_a_device_is_refused(tmp_path: Path, kind: int) -> None:
    assert refused(tmp_path, NAME, zipped(Packed(b"dev", unix_mode=kind | 0o666))).code is Code.DEVICE_NODE


@pytest.mark.parametrize("flag", [0x1, 0x41, 0x2000], ids=hex)
def test_an_encrypted_entry_is_refused(tmp_path: Path, flag: int) -> None:
    assert refused(tmp_path, NAME, zipped(Packed(flags=flag))).code is Code.ENCRYPTED


@pytest.mark.parametrize("method", [9, 12345, 93, 95, 98, 99])
def test_a_compression_that_is_not_read_is_refused_by_name(tmp_path: Path, method: int) -> None:
    error = refused(tmp_path, NAME, zipped(Packed(method=method)))
    assert error.code is Code.UNSUPPORTED_COMPRESSION


LIES = {
    "another name": (Packed(local_name=b"b.txt"), Code.CONFLICTING_HEADERS),
    "another size": (Packed(local_size=4), Code.CONFLICTING_HEADERS),
    "a size too small": (Packed(size=4), Code.CONFLICTING_HEADERS),
    "a size too large": (Packed(size=6), Code.CONFLICTING_HEADERS),
    "a wrong checksum": (Packed(crc=1), Code.CHECKSUM_MISMATCH),
    "damage": (Packed(packed=b"\xff\xff\xff"), Code.CORRUPT),
    "too few bytes": (Packed(packed=zlib.compress(b"hello", 9)[2:4]), Code.TRUNCATED),
    "bytes behind the content": (Packed(packed=Packed().payload() + b"evil"), Code.HIDDEN_DATA),
    "no descriptor": (Packed(flags=8), Code.CONFLICTING_HEADERS),
    "a descriptor of another size": (
        Packed(flags=8, descriptor=struct.pack("<LLL", zlib.crc32(b"hello"), 7, 6)),
        Code.CONFLICTING_HEADERS,
    ),
    "a header where none is": (Packed(offset=3), Code.HIDDEN_DATA),
    "a folder with content": (Packed(b"folder/"), Code.CONFLICTING_HEADERS),
    "a folder by type alone": (Packed(b"x", unix_mode=0o40755), Code.CONFLICTING_HEADERS),
    "zip64 numbers that are not there": (Packed(size=0xFFFFFFFF), Code.MALFORMED),
    "extra fields too long": (Packed(extra=b"\1\0\xff\0"), Code.MALFORMED),
    "a rest of extra fields": (Packed(extra=b"\1"), Code.MALFORMED),
    "two numbers of zip64": (Packed(extra=b"\1\0\0\0" * 2), Code.CONFLICTING_HEADERS),
    "another Unicode name": (Packed(extra=unicode_path(b"a.txt", "b.txt")), Code.CONFLICTING_HEADERS),
    "a Unicode name of another": (Packed(extra=unicode_path(b"b.txt", "b.txt")), Code.CONFLICTING_HEADERS),
    "patched data": (Packed(flags=0x20), Code.UNSUPPORTED_COMPRESSION),
    "a link to nothing": (Packed(data=b"", unix_mode=0o120777), Code.MALFORMED),
    "a link of bytes": (Packed(data=b"\xff", unix_mode=0o120777), Code.NAME_NOT_PORTABLE),
    "a link too long": (Packed(data=b"x" * 2000, unix_mode=0o120777), Code.NAME_TOO_LONG),
}


@pytest.mark.parametrize(("entry", "code"), LIES.values(), ids=LIES.keys())
def test_an_entry_that_contradicts_itself_is_refused(tmp_path: Path, entry: Packed, code: Code) -> None:
    assert refused(tmp_path, NAME, zipped(entry)).code is code


def test_entries_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    first = Packed(b"a")
    assert refused(tmp_path, NAME, zipped(first, Packed(b"a2", offset=0))).code is Code.OVERLAPPING_ENTRIES


def test_an_entry_whose_content_holds_the_next_one_is_refused(tmp_path: Path) -> None:
    inner = Packed(b"inner", b"x", method=0)
    outer = Packed(b"outer", inner.local(), method=0)
    body = outer.local()
    places = [outer.central(0), inner.central(len(body) - len(inner.local()))]
    end = struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, 2, 2, len(b"".join(places)), len(body), 0)
    error = refused(tmp_path, NAME, body + b"".join(places) + end)
    assert error.code is Code.OVERLAPPING_ENTRIES


def test_bytes_that_belong_to_no_entry_are_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, NAME, zipped(Packed(), gap=b"hidden")).code is Code.HIDDEN_DATA


@pytest.mark.parametrize("shift", [0, 16], ids=["offsets left", "offsets moved"])
def test_bytes_before_a_zip_are_refused(tmp_path: Path, shift: int) -> None:
    data = zipped(Packed(offset=shift))
    moved = data[:-6] + struct.pack("<L", struct.unpack("<L", data[-6:-2])[0] + shift) + data[-2:]
    error = refused(tmp_path, "tool-1.0", b"#!/usr/bin/env x" + moved)
    assert error.code is Code.PREPENDED_DATA


def test_bytes_after_a_zip_are_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, NAME, zipped(Packed()) + b"more").code is Code.TRAILING_DATA


def test_a_second_end_in_the_comment_is_refused(tmp_path: Path) -> None:
    inner = zipped(Packed(b"other"))
    assert refused(tmp_path, NAME, zipped(Packed(), comment=inner)).code is Code.AMBIGUOUS_DIRECTORY


def test_a_comment_is_no_harm(tmp_path: Path) -> None:
    assert inspected(tmp_path, NAME, zipped(Packed(), comment=b"made by a tool")).files


def test_a_zip_without_entries_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, NAME, zipped()).code is Code.EMPTY


@pytest.mark.parametrize("count", [0, 2, 7], ids=str)
def test_a_wrong_count_of_entries_is_refused(tmp_path: Path, count: int) -> None:
    error = refused(tmp_path, NAME, zipped(Packed(), count=count))
    assert error.code in {Code.EMPTY, Code.MALFORMED}


def test_zip64_records_that_contradict_the_old_ones_are_refused(tmp_path: Path) -> None:
    data = as_zip64(zipped(Packed()))
    lying = data[:-10] + struct.pack("<L", 1) + data[-6:]
    assert refused(tmp_path, NAME, lying).code is Code.CONFLICTING_HEADERS


@pytest.mark.parametrize("change", [{"entries": 1 << 60}, {"size": 1 << 60}, {"offset": 1 << 62}], ids=str)
def test_huge_numbers_of_zip64_cost_nothing(tmp_path: Path, change: dict[str, int]) -> None:
    error = refused(tmp_path, NAME, as_zip64(zipped(Packed()), **change))
    assert error.code in {Code.TOO_MANY_MEMBERS, Code.TRUNCATED}


def test_a_bomb_of_one_file_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, NAME, made_zip({"zeros": bytes(ZEROS)})).code is Code.RATIO_EXCEEDED


def test_a_file_that_declares_too_much_is_refused_unread(tmp_path: Path) -> None:
    data = made_zip({"big": bytes(2000)})
    assert refused(tmp_path, NAME, data, limits=Limits(file_bytes=1000)).code is Code.FILE_TOO_LARGE


def test_too_many_bytes_in_all_are_refused(tmp_path: Path) -> None:
    data = made_zip({f"file{number}": bytes(900) for number in range(9)})
    assert refused(tmp_path, NAME, data, limits=Limits(total_bytes=5000)).code is Code.TOTAL_TOO_LARGE


def test_too_many_entries_are_refused(tmp_path: Path) -> None:
    data = made_zip({f"file{number}": b"" for number in range(9)})
    assert refused(tmp_path, NAME, data, limits=Limits(members=8)).code is Code.TOO_MANY_MEMBERS


def lzma_entry(code: int, dictionary: int, flags: int = 0) -> Packed:
    options = {"id": lzma.FILTER_LZMA1, "dict_size": 4096}
    stream = lzma.compress(b"hello", lzma.FORMAT_RAW, filters=[options])
    head = struct.pack("<BBHBL", 9, 4, 5, code, dictionary)
    return Packed(method=14, packed=head + stream, flags=flags)


def test_lzma_with_and_without_an_end_mark_is_read(tmp_path: Path) -> None:
    assert inspected(tmp_path, NAME, zipped(lzma_entry(93, 4096, flags=2))).files[0].size == 5


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        (lzma_entry(93, 0xFFFFFFFF), Code.MEMORY_EXCEEDED),
        (lzma_entry(255, 4096), Code.CORRUPT),
        (Packed(method=14, packed=b"\x09\4"), Code.TRUNCATED),
        (Packed(method=14, packed=b"\x09\4\5\0\x5d\0\x10\0\0\xff\xff\xff\xff\xff"), Code.CORRUPT),
        (Packed(method=12, packed=bz2.compress(b"hello")[:-4]), Code.TRUNCATED),
    ],
    ids=["dictionary", "properties", "head", "stream", "bzip2"],
)
def test_impossible_streams_are_refused(tmp_path: Path, entry: Packed, code: Code) -> None:
    assert refused(tmp_path, NAME, zipped(entry)).code is code


def test_every_cut_of_a_zip_is_refused(tmp_path: Path) -> None:
    data = made_zip({"a": b"hello" * 20, "b": b"there"})
    for end in range(len(data)):
        refused(tmp_path, NAME, data[:end])


def test_the_same_zip_gives_the_same_outcome(tmp_path: Path) -> None:
    data = made_zip({name: name.encode() for name in "zyxabc"})
    outcomes = []
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        outcomes.append((inspected(tmp_path / place, NAME, data).as_json(), tree(tmp_path / place)))
    assert outcomes[0] == outcomes[1]
