"""Bytes by their digest, in a real folder."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from controlplane.packaging.blobs import BlobDamaged, BlobMissing, Blobs

DATA = bytes(range(256)) * 100
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")


def whole(tmp_path: Path) -> Path:
    path = tmp_path / "whole"
    path.write_bytes(DATA)
    return path


async def test_what_was_put_is_read_from_any_offset(blobs: Blobs, tmp_path: Path) -> None:
    assert not await blobs.has(SHA256)
    await blobs.put_file(whole(tmp_path), SHA256)
    await blobs.put_file(whole(tmp_path), SHA256)
    assert (await blobs.has(SHA256), await blobs.size(SHA256)) == (True, len(DATA))
    for offset in (0, 1_000, len(DATA)):
        assert b"".join([piece async for piece in blobs.read(SHA256, offset, piece=777)]) == DATA[offset:]


async def test_nothing_is_read_of_what_is_not_there(blobs: Blobs, tmp_path: Path) -> None:
    with pytest.raises(BlobMissing):
        await blobs.size(SHA256)
    with pytest.raises(BlobMissing):
        await blobs.fetch(SHA256, tmp_path / "out")
    await blobs.delete(SHA256)


async def test_what_has_another_digest_is_not_handed_out_and_is_mended_by_the_next_put(
    blobs: Blobs, tmp_path: Path
) -> None:
    torn = tmp_path / "blobs" / "sha256" / SHA256[:2] / SHA256
    torn.parent.mkdir(parents=True)
    torn.write_bytes(DATA[:100])
    with pytest.raises(BlobDamaged):
        await blobs.fetch(SHA256, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    await blobs.put_file(whole(tmp_path), SHA256)
    await blobs.fetch(SHA256, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == DATA


async def test_parts_are_joined_in_their_order_unless_one_is_missing(blobs: Blobs, tmp_path: Path) -> None:
    await blobs.put_part("u1", 10, b"second")
    with pytest.raises(BlobMissing):
        await blobs.join_parts("u1", tmp_path / "gap")
    await blobs.put_part("u1", 0, b"the first.")
    assert (
        await blobs.join_parts("u1", tmp_path / "joined") == hashlib.sha256(b"the first.second").hexdigest()
    )
    assert (tmp_path / "joined").read_bytes() == b"the first.second"
    await blobs.delete_upload("u1")
    await blobs.delete_upload("u1")
    assert not await blobs._parts("u1")


# Writes all of a file but its end, and is killed.
_KILLED = """
import asyncio, os, signal, sys
import obstore
from obstore.store import LocalStore

def pieces():
    yield b"x" * (32 << 20)
    os.kill(os.getpid(), signal.SIGKILL)

store = LocalStore(prefix=sys.argv[1], mkdir=True)
obstore.put(store, "sha256/aa/" + "a" * 64, pieces(), chunk_size=1 << 20, use_multipart=True)
"""


def test_what_a_killed_process_was_writing_is_removed_once_it_is_old(blobs: Blobs, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _KILLED, str(tmp_path / "blobs")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    [left] = [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
    assert left.name != "a" * 64, "nothing is there under a name before it is whole"
    assert blobs.sweep() == 0, "it may still be on its way"
    assert left.exists()
    assert blobs.sweep(older_than=timedelta(seconds=-1)) == 1
    assert not left.exists()


async def test_what_is_stored_is_never_swept(blobs: Blobs, tmp_path: Path) -> None:
    await blobs.put_file(whole(tmp_path), SHA256)
    await blobs.put_part("u1", 0, DATA)
    assert blobs.sweep(older_than=timedelta(seconds=-1)) == 0
    assert await blobs.verify(SHA256)
    assert await blobs.join_parts("u1", tmp_path / "joined") == SHA256
