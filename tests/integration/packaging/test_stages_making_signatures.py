"""SIGN: the OpenPGP signature of a .deb stands once it is committed; what other code says of signatures."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from fleetwright.verify.keys import Purpose

from controlplane.packaging.rules import Stage
from controlplane.packaging.signing.gpgorigin import described, detached
from controlplane.packaging.signing.keys import OriginKey, create_key
from controlplane.packaging.signing.states import SigningFailed
from controlplane.packaging.signing.verifying import verify_deb
from controlplane.packaging.stages import StageFailed
from controlplane.packaging.store import signatures
from controlplane.trust import second_look
from controlplane.trust.keys import SigningKey
from tests.integration.packaging.making_world import World
from tests.unit.packaging.archives.good import GOOD, deb
from tests.unit.packaging.building.trees import OPTIONS

needs_gpgv = pytest.mark.skipif(shutil.which("gpgv") is None, reason="no gpgv is installed here")


@needs_gpgv
async def test_a_deb_is_signed_and_verified_by_another_implementation(
    world: World, origin: OriginKey, tmp_path: Path
) -> None:
    world.origin = origin
    made = await world.make(*GOOD["deb"])
    dsse, openpgp = made.outcomes[Stage.SIGN]["signatures"]
    signed_by = (openpgp["kind"], openpgp["state"], openpgp["key_id"])
    assert (dsse["state"], dsse["key_id"]) == ("VERIFIED", world.keys[Purpose.PROVENANCE].key_id)
    assert signed_by == ("openpgp", "VERIFIED", origin.fingerprint)
    assert "gpgv" in openpgp["verified_by"]
    unsigned, final = made.outcomes[Stage.BUILD]["package"], made.outcomes[Stage.SIGN]["package"]
    assert unsigned["sha256"] != final["sha256"]
    assert unsigned["file_name"] == final["file_name"] == "demo_2.0-1_amd64.deb"
    await world.blobs.fetch(final["sha256"], tmp_path / "signed.deb")
    assert verify_deb(tmp_path / "signed.deb", origin.certificate).tool
    provenance = made.outcomes[Stage.SIGN]["attestations"]["provenance"]
    statement = await world.attested(provenance, Purpose.PROVENANCE)
    assert statement.is_about(final["sha256"])
    assert not statement.is_about(unsigned["sha256"]), "the unsigned bytes are a material, not a subject"


async def test_a_run_again_comes_to_the_same_bytes(world: World, origin: OriginKey) -> None:
    world.origin = origin
    made = await world.make(*GOOD["deb"], last=Stage.BUILD)
    first = await made.step(Stage.SIGN)
    # As after a crash before the outcome was committed, and before the bytes were kept.
    await world.blobs.delete(first.outcome["package"]["sha256"])
    again = await made.step(Stage.SIGN)
    assert again.outcome == first.outcome
    assert await world.blobs.verify(first.outcome["package"]["sha256"])


async def test_of_two_workers_the_first_committed_signature_stands(world: World, origin: OriginKey) -> None:
    world.origin = origin
    made = await world.make(*GOOD["deb"], last=Stage.BUILD)
    both = [world.run(Stage.SIGN, made.pipeline, dict(made.outcomes)) for _ in range(2)]
    one, other = await asyncio.gather(*both)
    assert one.outcome["package"] == other.outcome["package"]


async def test_another_key_makes_another_signature(world: World, origin: OriginKey, tmp_path: Path) -> None:
    world.origin = origin
    made = await world.make(*GOOD["deb"], last=Stage.BUILD)
    first = await made.step(Stage.SIGN)
    world.origin = create_key(tmp_path / "other.asc", "Fleet <fleet@example.org>")
    second = await made.step(Stage.SIGN)
    assert first.outcome["package"]["sha256"] != second.outcome["package"]["sha256"]
    unsigned = made.outcomes[Stage.BUILD]["package"]["sha256"]
    async with world.database.reading() as connection:
        kept = await signatures.find_signature(connection, unsigned, origin.fingerprint)
        assert await signatures.find_signature(connection, unsigned, "0" * 40) is None
    assert kept is not None
    assert described(kept).created.startswith("20")


async def test_without_an_openpgp_key_a_deb_says_that_it_has_no_signature(world: World) -> None:
    made = await world.make(*GOOD["deb"], last=Stage.SIGN)
    _, openpgp = made.outcomes[Stage.SIGN]["signatures"]
    assert (openpgp["state"], openpgp["verified_by"]) == ("ABSENT", "")
    assert "no OpenPGP key" in openpgp["detail"]
    assert made.outcomes[Stage.SIGN]["package"] == made.outcomes[Stage.BUILD]["package"]


async def test_a_deb_beside_the_archive_is_signed_and_attested_too(world: World, origin: OriginKey) -> None:
    world.origin = origin
    made = await world.make(*GOOD["wheel"], manifest={"deb": OPTIONS})
    signed, built = made.outcomes[Stage.SIGN], made.outcomes[Stage.BUILD]
    assert signed["deb"]["file_name"] == "demo-pkg_1.2.3_all.deb"
    assert signed["package"] == built["package"]
    assert signed["deb"]["sha256"] != built["deb"]["sha256"]
    statement = await world.attested(signed["attestations"]["provenance"], Purpose.PROVENANCE)
    assert statement.is_about(signed["deb"]["sha256"])
    assert statement.is_about(signed["package"]["sha256"])
    assert [one["state"] for one in signed["signatures"][:2]] == ["VERIFIED", "ABSENT"]


async def test_a_key_that_cannot_be_used_ends_the_stage_with_its_reason(world: World) -> None:
    made = await world.make(*GOOD["deb"], last=Stage.BUILD)

    def expired() -> OriginKey:
        raise SigningFailed("KEY_EXPIRED", "the key in origin.asc expired; make a new one")

    world.origin_for = expired
    with pytest.raises(StageFailed) as caught:
        await made.step(Stage.SIGN)
    assert (caught.value.code, "origin.asc" in str(caught.value)) == ("KEY_EXPIRED", True)


async def test_a_signature_that_other_code_refuses_ends_the_stage(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await world.make(*GOOD["npm"], last=Stage.BUILD)
    monkeypatch.setattr(SigningKey, "sign", lambda *_: bytes(64))
    with pytest.raises(StageFailed) as caught:
        await made.step(Stage.SIGN)
    assert caught.value.code == "SIGNATURE_REFUSED"
    assert second_look.NAME in str(caught.value)


@needs_gpgv
async def test_an_origin_that_gpgv_refuses_ends_the_stage(
    world: World, origin: OriginKey, tmp_path: Path
) -> None:
    world.origin = origin
    made = await world.make(*GOOD["deb"], last=Stage.BUILD)
    (tmp_path / "other.deb").write_bytes(deb(ending="gz"))
    foreign = detached(tmp_path / "other.deb", origin, tmp_path)
    async with world.database.unit_of_work() as work:
        # A signature of something else, as a mistake in a store could have left it.
        unsigned = made.outcomes[Stage.BUILD]["package"]["sha256"]
        await signatures.keep_signature(work, unsigned, origin.fingerprint, foreign, 0)
    with pytest.raises(StageFailed) as caught:
        await made.step(Stage.SIGN)
    assert caught.value.code == "SIGNATURE_REFUSED"
    assert "BADSIG" in str(caught.value)
