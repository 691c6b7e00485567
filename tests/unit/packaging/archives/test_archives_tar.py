"""Tars and their compressions: what is read, and every way in which they can lie."""

from __future__ import annotations

import bz2
import gzip
import lzma
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from controlplane.packaging.archives.errors import Code
from controlplane.packaging.archives.limits import Limits
from tests.unit.packaging.archives.good import made_tar
from tests.unit.packaging.archives.raw import Block, pax, record, tarred, zipped
from tests.unit.packaging.archives.reading import inspected, refused

NAME = "tool-1.0.tar"
LONG = "folder/" * 30 + "file"


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=str)
def test_each_dialect_is_read(tmp_path: Path, form: int) -> None:
    files = {"a/b.bin": bytes(range(256)) * 3000, "empty": b"", "folder/" * 16 + "é": b"x"}
    found = inspected(tmp_path, NAME, made_tar(files, form))
    assert {entry.path: (tmp_path / "into" / entry.path).read_bytes() for entry in found.files} == files


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=str)
def test_long_names_are_read(tmp_path: Path, form: int) -> None:
    assert inspected(tmp_path, NAME, made_tar({LONG: b"x"}, form)).files[0].path == LONG


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("t.tar.gz", gzip.compress),
        ("t.tgz", gzip.compress),
        ("t.tar.xz", lzma.compress),
        ("t.tar.bz2", bz2.compress),
    ],
    ids=["gz", "tgz", "xz", "bz2"],
)
def test_each_compression_is_read(tmp_path: Path, name: str, pack: Callable[[bytes], bytes]) -> None:
    content = bytes(range(256)) * 9000
    found = inspected(tmp_path, name, pack(made_tar({"a": content})))
    assert found.files[0].size == len(content)


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, bz2.compress], ids=["gz", "xz", "bz2"])
def test_streams_one_after_the_other_are_one(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    name = {gzip.compress: "t.tar.gz", lzma.compress: "t.tar.xz", bz2.compress: "t.tar.bz2"}[pack]
    data = made_tar({"a": b"one", "b": b"two"})
    assert len(inspected(tmp_path, name, pack(data[:700]) + pack(b"") + pack(data[700:])).files) == 2


def test_links_within_the_root_are_made(tmp_path: Path) -> None:
    data = tarred(
        Block(b"top/", type=b"5"),
        Block(b"top/file", b"hello"),
        Block(b"top/hard", type=b"1", target=b"top/file"),
        Block(b"top/in/soft", type=b"2", target=b"../file"),
    )
    found = inspected(tmp_path, NAME, data)
    assert [(entry.path, entry.link_target) for entry in found.files] == [
        ("top/file", ""),
        ("top/hard", ""),
        ("top/in/soft", "../file"),
    ]
    assert (tmp_path / "into/top/hard").read_bytes() == b"hello"
    assert (tmp_path / "into/top/in/soft").read_bytes() == b"hello"


def test_bits_that_give_rights_are_cleared(tmp_path: Path) -> None:
    found = inspected(tmp_path, NAME, tarred(Block(b"run", b"x", mode=b"0007755\0")))
    assert found.files[0].mode == 0o755
    assert stat.S_IMODE((tmp_path / "into/run").stat().st_mode) == 0o755


def test_a_file_that_nobody_may_read_is_still_readable_here(tmp_path: Path) -> None:
    found = inspected(tmp_path, NAME, tarred(Block(b"secret", b"x", mode=b"0000200\0")))
    assert found.files[0].mode == 0o200
    assert stat.S_IMODE((tmp_path / "into/secret").stat().st_mode) == 0o644


def test_times_behind_the_prefix_are_overlooked(tmp_path: Path) -> None:
    times = b"15270440050\0" * 2
    data = tarred(Block(b"a", b"x", prefix=b"top".ljust(131, b"\0") + times))
    assert inspected(tmp_path, NAME, data).files[0].path == "top/a"


def test_a_global_header_that_names_nothing_is_read(tmp_path: Path) -> None:
    data = tarred(Block(b"pax_global_header", record("comment", b"abc"), b"g"), Block(b"a", b"x"))
    assert inspected(tmp_path, NAME, data).files[0].path == "a"


def test_attributes_of_bytes_are_overlooked(tmp_path: Path) -> None:
    data = tarred(Block(b"pax", record("SCHILY.xattr.user.x", b"\xff\0\n="), b"x"), Block(b"a", b"x"))
    assert inspected(tmp_path, NAME, data).files[0].path == "a"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        (b"../evil", Code.PATH_ESCAPES),
        (b"/evil", Code.PATH_ESCAPES),
        (b"C:\\evil", Code.PATH_ESCAPES),
        (b"a\\b", Code.NAME_NOT_PORTABLE),
        (b"good\0evil", Code.NUL_IN_NAME),
        (b"\xff", Code.NAME_NOT_PORTABLE),
        (b"dot.", Code.NAME_NOT_PORTABLE),
        (b"", Code.NAME_NOT_PORTABLE),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: bytes, code: Code) -> None:
    assert refused(tmp_path, NAME, tarred(Block(b"first"), Block(name, b"x"))).code is code


@pytest.mark.parametrize("way", ["pax", "gnu", "prefix"])
def test_a_name_that_leads_out_is_refused_however_it_is_written(tmp_path: Path, way: str) -> None:
    blocks = {
        "pax": [pax(path="../evil"), Block(b"good", b"x")],
        "gnu": [Block(b"././@LongLink", b"../evil\0", b"L"), Block(b"good", b"x")],
        "prefix": [Block(b"evil", b"x", prefix=b"..")],
    }[way]
    assert refused(tmp_path, NAME, tarred(*blocks)).code is Code.PATH_ESCAPES


@pytest.mark.parametrize("target", [b"/etc/passwd", b"../../up", b"x/../../..", b"C:\\x"], ids=str)
def test_a_link_that_may_lead_out_is_refused(tmp_path: Path, target: bytes) -> None:
    error = refused(tmp_path, NAME, tarred(Block(b"a/link", type=b"2", target=target)))
    assert error.code is Code.LINK_ESCAPES


def test_a_chain_of_links_that_leads_out_is_refused(tmp_path: Path) -> None:
    first = Block(b"deep/er/l", type=b"2", target=b"../..")
    data = tarred(first, Block(b"m", type=b"2", target=b"deep/er/l/../x"))
    assert refused(tmp_path, NAME, data).code is Code.LINK_ESCAPES


@pytest.mark.parametrize("target", [b"/etc/passwd", b"../up", b"absent", b"soft"], ids=str)
def test_a_hard_link_to_no_file_of_the_archive_is_refused(tmp_path: Path, target: bytes) -> None:
    data = tarred(Block(b"soft", type=b"2", target=b"x"), Block(b"hard", type=b"1", target=target))
    assert refused(tmp_path, NAME, data).code in {Code.LINK_ESCAPES, Code.PATH_ESCAPES}


def test_a_file_that_is_written_through_a_link_is_refused(tmp_path: Path) -> None:
    data = tarred(Block(b"here", type=b"2", target=b"there"), Block(b"here/evil", b"x"))
    assert refused(tmp_path, NAME, data).code is Code.LINK_IN_PATH


def test_a_file_in_the_place_of_a_link_is_refused(tmp_path: Path) -> None:
    data = tarred(Block(b"here", type=b"2", target=b"there"), Block(b"here", b"x"))
    assert refused(tmp_path, NAME, data).code is Code.DUPLICATE_ENTRY


@pytest.mark.parametrize("kind", [b"3", b"4", b"6"], ids=["character", "block", "pipe"])
def test_a_device_is_refused(tmp_path: Path, kind: bytes) -> None:
    assert refused(tmp_path, NAME, tarred(Block(b"dev", type=kind))).code is Code.DEVICE_NODE


LIES = {
    "another checksum": (tarred(Block(b"ok"), Block(checksum=b"000001\0 ")), Code.CHECKSUM_MISMATCH),
    "no checksum": (tarred(Block(b"ok"), Block(checksum=b"\0" * 8)), Code.CHECKSUM_MISMATCH),
    "no magic": (tarred(Block(b"ok"), Block(magic=bytes(8))), Code.MALFORMED),
    "letters for a mode": (tarred(Block(b"ok"), Block(mode=b"abcdefg\0")), Code.MALFORMED),
    "an unknown type": (tarred(Block(type=b"Z")), Code.UNSUPPORTED_MEMBER),
    "a part of several volumes": (tarred(Block(type=b"M")), Code.UNSUPPORTED_MEMBER),
    "a sparse file": (tarred(Block(type=b"S")), Code.SPARSE_FILE),
    "sparse by pax": (tarred(Block(b"p", record("GNU.sparse.major", b"1"), b"x"), Block()), Code.SPARSE_FILE),
    "a folder with content": (tarred(Block(b"d/", b"x", b"5")), Code.CONFLICTING_HEADERS),
    "a link with content": (tarred(Block(b"l", b"x", b"2", b"y")), Code.CONFLICTING_HEADERS),
    "a file named as a folder": (tarred(Block(b"d/", b"x")), Code.CONFLICTING_HEADERS),
    "two sizes": (tarred(pax(size="512"), Block(b"a", b"x" * 1024)), Code.CONFLICTING_HEADERS),
    "a size in letters": (tarred(pax(size="1e3"), Block(b"a", b"x")), Code.MALFORMED),
    "two names": (tarred(pax(path="a"), pax(path="b"), Block(b"c")), Code.CONFLICTING_HEADERS),
    "an empty name": (tarred(pax(path=""), Block(b"c")), Code.CONFLICTING_HEADERS),
    "a name twice": (tarred(Block(b"p", record("path", b"a") * 2, b"x"), Block()), Code.DUPLICATE_FIELD),
    "a NUL by pax": (tarred(pax(path="a\0b"), Block()), Code.NUL_IN_NAME),
    "a NUL by GNU": (tarred(Block(b"L", b"a\0b\0", b"L"), Block()), Code.NUL_IN_NAME),
    "a record too long": (tarred(Block(b"p", b"99 path=a\n", b"x"), Block()), Code.MALFORMED),
    "a record of nothing": (tarred(Block(b"p", b"3 \n", b"x"), Block()), Code.MALFORMED),
    "a record without a key": (tarred(Block(b"p", b"6 =ab\n", b"x"), Block()), Code.MALFORMED),
    "a record of no length": (tarred(Block(b"p", b"0 path=a\n", b"x"), Block()), Code.MALFORMED),
    "a global name": (tarred(Block(b"g", record("path", b"a"), b"g"), Block()), Code.CONFLICTING_HEADERS),
    "a header for nobody": (tarred(Block(b"ok"), pax(path="a")), Code.TRUNCATED),
    "a long header": (tarred(Block(b"L", b"x" * 2_000_000, b"L"), Block()), Code.METADATA_TOO_LARGE),
    "bytes behind the end": (tarred(Block()) + b"evil", Code.TRAILING_DATA),
    "bytes between the zeros": (tarred(Block(), end=bytes(512) + b"x" * 512), Code.TRAILING_DATA),
    "one block of zeros": (tarred(Block(), end=bytes(512)), Code.TRUNCATED),
    "no end": (tarred(Block(), end=b""), Code.TRUNCATED),
    "a second tar": (tarred(Block(b"a")) + tarred(Block(b"b")), Code.TRAILING_DATA),
    "a name twice over": (tarred(Block(b"a"), Block(b"a")), Code.DUPLICATE_ENTRY),
    "a name in other letters": (tarred(Block(b"a"), Block(b"A")), Code.DUPLICATE_ENTRY),
    "nothing": (bytes(10240), Code.UNKNOWN_FORMAT),
    "folders alone": (tarred(Block(b"d/", type=b"5")), Code.EMPTY),
}


@pytest.mark.parametrize(("data", "code"), LIES.values(), ids=LIES.keys())
def test_a_tar_that_contradicts_itself_is_refused(tmp_path: Path, data: bytes, code: Code) -> None:
    assert refused(tmp_path, NAME, data).code is code


def test_a_size_in_base_256_is_read(tmp_path: Path) -> None:
    plain = Block(b"a", b"hello").written()
    body = plain[:124] + b"\x80" + bytes(10) + b"\5" + plain[136:]
    total = sum(body[:148]) + 8 * 32 + sum(body[156:512])
    data = body[:148] + b"%06o\0 " % total + body[156:]
    assert inspected(tmp_path, NAME, data + bytes(1024)).files[0].size == 5


def test_a_huge_size_costs_nothing(tmp_path: Path) -> None:
    assert refused(tmp_path, NAME, tarred(Block(b"a", size=0o77777777777))).code is Code.FILE_TOO_LARGE


def test_a_file_that_ends_too_early_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, NAME, tarred(Block(b"a", size=1 << 20), end=bytes(9))).code is Code.TRUNCATED


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, bz2.compress], ids=["gz", "xz", "bz2"])
def test_every_cut_of_a_compressed_tar_is_refused(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    name = {gzip.compress: "t.tar.gz", lzma.compress: "t.tar.xz", bz2.compress: "t.tar.bz2"}[pack]
    data = pack(made_tar({"a": b"hello"}))
    for end in range(len(data)):
        refused(tmp_path, name, data[:end])


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, bz2.compress], ids=["gz", "xz", "bz2"])
@pytest.mark.parametrize("more", [b"x", b"PK\5\6" + bytes(18), bytes(64)], ids=["a byte", "a zip", "zeros"])
def test_bytes_behind_the_compressed_stream_are_refused(
    tmp_path: Path, pack: Callable[[bytes], bytes], more: bytes
) -> None:
    name = {gzip.compress: "t.tar.gz", lzma.compress: "t.tar.xz", bz2.compress: "t.tar.bz2"}[pack]
    error = refused(tmp_path, name, pack(made_tar({"a": b"hello"})) + more)
    assert error.code is (Code.POLYGLOT if more.startswith(b"PK") else Code.TRAILING_DATA)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress], ids=["gz", "bz2", "xz"])
def test_a_bomb_is_refused(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    name = {gzip.compress: "t.tar.gz", lzma.compress: "t.tar.xz", bz2.compress: "t.tar.bz2"}[pack]
    limits = Limits(ratio_from=1 << 20)
    data = pack(tarred(Block(b"zeros", bytes(4 << 20))))
    assert refused(tmp_path, name, data, limits=limits).code is Code.RATIO_EXCEEDED


def test_a_bomb_behind_the_end_is_refused(tmp_path: Path) -> None:
    data = gzip.compress(tarred(Block(b"a"), end=bytes(8 << 20)))
    assert refused(tmp_path, "t.tgz", data, limits=Limits(ratio_from=1 << 20)).code is Code.RATIO_EXCEEDED


def test_a_hard_link_bomb_is_refused(tmp_path: Path) -> None:
    links = [Block(b"link%d" % number, type=b"1", target=b"file") for number in range(20)]
    data = tarred(Block(b"file", bytes(100_000)), *links)
    assert refused(tmp_path, NAME, data, limits=Limits(total_bytes=1 << 20)).code is Code.TOTAL_TOO_LARGE


def test_endless_headers_are_refused(tmp_path: Path) -> None:
    data = gzip.compress(tarred(*[Block(b"g", record("comment", b"x"), b"g")] * 200))
    assert refused(tmp_path, "t.tgz", data, limits=Limits(members=100)).code is Code.TOO_MANY_MEMBERS


def test_endless_empty_streams_are_refused(tmp_path: Path) -> None:
    data = gzip.compress(made_tar({"a": b""})) + gzip.compress(b"") * 200
    assert refused(tmp_path, "t.tgz", data, limits=Limits(members=100)).code is Code.TOO_MANY_MEMBERS


def test_a_dictionary_that_needs_too_much_memory_is_refused(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 16 << 20}]
    data = lzma.compress(made_tar({"a": b"x"}), filters=filters)
    error = refused(tmp_path, "t.tar.xz", data, limits=Limits(memory_bytes=1 << 20))
    assert error.code is Code.MEMORY_EXCEEDED


def test_damage_within_a_stream_is_refused(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(made_tar({"a": bytes(range(256)) * 64})))
    data[-6] ^= 1
    assert refused(tmp_path, "t.tgz", bytes(data)).code is Code.CORRUPT


def test_a_zip_within_a_tar_is_no_polyglot(tmp_path: Path) -> None:
    found = inspected(tmp_path, NAME, made_tar({"a.zip": zipped()}))
    assert found.files[0].path == "a.zip"
