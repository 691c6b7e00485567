"""Bytes by their digest, in a real folder."""

from __future__ import annotations

import hashlib
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
