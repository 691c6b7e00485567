"""Each type of artefact, made on the spot, on its way to a signed and listed package."""

from __future__ import annotations

import gzip
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fleetwright.manifest import parse, read_manifest
from fleetwright.verify.chain import verify_attestations
from fleetwright.verify.keys import Purpose
from fleetwright.verify.predicates import Provenance, Sbom
from fleetwright.verify.reports import Outcome

from controlplane.packaging.archives.errors import Code
from controlplane.packaging.records import ArtefactType
from controlplane.packaging.rules import Stage
from controlplane.packaging.sbom.documents import components_of
from controlplane.packaging.sbom.serialisation import components_from_json
from controlplane.packaging.stages import StageFailed
from tests.integration.packaging.making_world import BUILDER, Made, World, failure
from tests.unit.packaging.archives.good import (
    GOOD,
    WHEEL_NAME,
    elf,
    made_tar,
    made_zip,
    sdist,
    wheel,
    wheel_files,
)

# The stages of this file write to no database.
pytestmark = pytest.mark.parametrize("location", ["sqlite"], indirect=True)

PURLS = {
    "wheel": "pkg:pypi/demo-pkg@1.2.3",
    "sdist": "pkg:pypi/demo-pkg@1.2.3",
    "npm": "pkg:npm/%40demo/pkg@1.2.3",
    "jar": "pkg:maven/org.demo/demo@1.2.3",
    "deb": "pkg:deb/debian/demo@1:2.0-1?arch=amd64",
    "binary": "pkg:generic/tool@1.0",
}


@pytest.mark.parametrize("kind", sorted(GOOD))
async def test_an_artefact_becomes_a_package_with_its_evidence(world: World, kind: str) -> None:
    made = await world.make(*GOOD[kind])
    assert made.pipeline.artefact_type == kind
    package = made.outcomes[Stage.SIGN]["package"]
    assert made.pipeline.package == package["sha256"]
    assert len(await world.content(package["sha256"])) == package["size"]
    await _check_provenance(made)
    await _check_sbom(made, kind)
    await _check_chain(made)


async def _check_provenance(made: Made) -> None:
    signed = made.outcomes[Stage.SIGN]
    statement = await made.world.attested(signed["attestations"]["provenance"], Purpose.PROVENANCE)
    built = statement.read()
    assert isinstance(built, Provenance)
    assert [one.sha256 for one in statement.subjects] == [signed["package"]["sha256"]]
    assert statement.subjects[0].name == signed["package"]["file_name"]
    assert built.builder == BUILDER
    materials = [one.sha256 for one in built.materials]
    assert materials == [made.pipeline.artefact, made.outcomes[Stage.BUILD]["package"]["sha256"]]


async def _check_chain(made: Made) -> None:
    """Judge by what agents judge by; nobody has scanned or decided yet."""
    digests = [made.outcomes[stage]["attestations"] for stage in (Stage.SIGN, Stage.SBOM)]
    lines = [await made.world.content(sha256) for one in digests for sha256 in one.values()]
    checks = verify_attestations(
        made.pipeline.package or "", b"\n".join(lines), made.world.attesters(), made.world.clock.now()
    )
    assert [one.name for one in checks if one.outcome is Outcome.OK] == ["signature", "provenance", "sbom"]


async def _check_sbom(made: Made, kind: str) -> None:
    found, world = made.outcomes[Stage.SBOM], made.world
    components = components_from_json(await world.content(found["components"]))
    assert len(components) == found["component_count"]
    assert any(one.purl.startswith(PURLS[kind]) for one in components) if kind in PURLS else not components
    for name in ("cyclonedx", "spdx"):
        listed = components_of(await world.content(found[name]))
        assert {one.purl for one in components} <= {one.purl for one in listed}
    statement = await world.attested(found["attestations"]["sbom"], Purpose.SBOM)
    assert statement.is_about(made.pipeline.package or "")
    assert isinstance(statement.read(), Sbom)
    if kind != "archive":
        assert found["claimed_file_count"] > 0


async def test_what_stages_say_and_report_is_for_people(world: World) -> None:
    made = await world.make(*GOOD["wheel"])
    intake = made.done[Stage.INTAKE]
    assert intake.outcome["facts"]["name"] == "demo-pkg"
    assert intake.outcome["file_count"] == 4
    assert made.pipeline.target_platform == "any/any"
    assert set(intake.isolation) >= {"network", "memory", "environment"}
    assert intake.isolation["network"].startswith("held: ")
    assert ("info", "wheel demo-pkg 1.2.3 for any") in world.said
    assert "zlib" in made.done[Stage.BUILD].tools
    assert made.done[Stage.SBOM].tools["syft"] == "not run: absent"
    assert made.outcomes[Stage.SIGN]["signatures"][0]["state"] == "VERIFIED"


async def test_the_package_has_the_manifest_of_the_outcome(world: World, tmp_path: Path) -> None:
    made = await world.make(*GOOD["wheel"], last=Stage.BUILD)
    built = made.outcomes[Stage.BUILD]
    path = tmp_path / "package"
    await world.blobs.fetch(built["package"]["sha256"], path)
    inside = read_manifest(path)
    assert parse(await world.content(built["manifest_sha256"])) == inside
    assert inside.source_sha256 == made.pipeline.artefact
    assert (built["manifest"]["name"], "files" in built["manifest"]) == ("demo-pkg", False)
    assert built["package"]["file_name"] == "demo-pkg-1.2.3-wheel.tar.gz"


async def test_the_same_artefact_gives_the_same_bytes_whoever_builds_and_when(world: World) -> None:
    first = await world.make(*GOOD["npm"], last=Stage.BUILD)
    world.clock.moment = world.clock.moment.replace(year=2031)
    other: dict[str, Any] = {"build_id": "another", "source_repository": "https://git.example.org/y"}
    again = await world.make(*GOOD["npm"], last=Stage.BUILD, **other)
    assert first.outcomes[Stage.BUILD]["package"] == again.outcomes[Stage.BUILD]["package"]
    assert first.outcomes[Stage.BUILD]["provenance"] != again.outcomes[Stage.BUILD]["provenance"]


async def test_fields_of_the_manifest_can_be_given(world: World) -> None:
    given = {"name": "agent-tool", "version": "2.5", "platforms": [{"os": "linux", "architecture": "amd64"}]}
    made = await world.make("blob.bin", elf(), manifest=given)
    assert (made.pipeline.package_name, made.pipeline.package_version) == ("agent-tool", "2.5")
    assert made.outcomes[Stage.BUILD]["package"]["file_name"] == "agent-tool-2.5-linux-amd64.tar.gz"
    [component] = components_from_json(await world.content(made.outcomes[Stage.SBOM]["components"]))
    assert (component.name, component.version) == ("agent-tool", "2.5")


async def test_the_platform_that_was_asked_for_is_the_packages(world: World) -> None:
    made = await world.make(*GOOD["wheel"], last=Stage.BUILD, target_platform="linux/x86_64")
    assert made.pipeline.target_platform == "linux/amd64"
    assert made.outcomes[Stage.BUILD]["manifest"]["platforms"] == [{"os": "linux", "architecture": "amd64"}]


async def test_a_source_is_in_the_provenance_as_it_was_declared(world: World) -> None:
    source: dict[str, Any] = {"source_repository": "https://git.example.org/demo", "source_commit": "c" * 40}
    made = await world.make(*GOOD["sdist"], last=Stage.SIGN, **source)
    signed = made.outcomes[Stage.SIGN]["attestations"]["provenance"]
    built = (await world.attested(signed, Purpose.PROVENANCE)).read()
    assert isinstance(built, Provenance)
    assert built.materials[-1].git_commit == "c" * 40


async def test_components_within_a_package_are_found(world: World) -> None:
    bundle = gzip.compress(made_tar({f"bundle-1.0/vendor/{WHEEL_NAME}": wheel()}))
    made = await world.make("bundle-1.0.tar.gz", bundle)
    found = components_from_json(await world.content(made.outcomes[Stage.SBOM]["components"]))
    assert [one.purl for one in found] == [PURLS["wheel"]]
    assert any("archives within it, left closed" in text for _, text in world.said)


# --- what is refused


def _lying_wheel() -> bytes:
    files = wheel_files()
    files["demo_pkg/__init__.py"] = b"VALUE = 2\n"
    return made_zip(files)


HOSTILE: dict[str, tuple[str, bytes, str]] = {
    "a path that leaves the folder": ("x-1.zip", made_zip({"../evil": b"x"}), "PATH_ESCAPES"),
    "an absolute path": ("x-1.tar", made_tar({"/etc/passwd": b"x"}), "PATH_ESCAPES"),
    "a zip bomb": ("x-1.zip", made_zip({"zeros": bytes(64 << 20)}), "RATIO_EXCEEDED"),
    "a zip that is called a wheel": (WHEEL_NAME, made_zip({"a": b"x"}), "NOT_WHAT_IT_SAYS"),
    "a truncated sdist": ("demo_pkg-1.2.3.tar.gz", sdist()[:-9], "TRUNCATED"),
    "an empty file": ("x-1.zip", b"", "EMPTY"),
    "text": ("x-1", b"hello, this is no format at all\n" * 9, "UNKNOWN_FORMAT"),
    "a name with a folder": ("../x-1.zip", made_zip({"a": b"x"}), "PATH_ESCAPES"),
    "a wheel whose RECORD lies": (WHEEL_NAME, _lying_wheel(), "DIGEST_MISMATCH"),
}


@pytest.mark.parametrize("what", sorted(HOSTILE))
async def test_a_hostile_artefact_ends_with_the_readers_own_code(world: World, what: str) -> None:
    name, content, code = HOSTILE[what]
    failed = await failure(world, name, content, last=Stage.INTAKE)
    assert failed.code == code, str(failed)
    assert str(failed)


@pytest.mark.parametrize("kind", sorted(GOOD))
@pytest.mark.parametrize("damage", ["truncated", "flipped", "doubled"])
async def test_a_damaged_artefact_never_ends_in_a_defect(world: World, kind: str, damage: str) -> None:
    name, content = GOOD[kind]
    middle = len(content) // 2
    damaged = {
        "truncated": content[:middle],
        "flipped": content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :],
        "doubled": content * 2,
    }
    with suppress(StageFailed):
        await world.make(name, damaged[damage], last=Stage.BUILD)
        return
    failed = await failure(world, name, damaged[damage], last=Stage.BUILD)
    assert failed.code in Code.__members__, str(failed)


@pytest.mark.parametrize(
    ("fields", "code", "said"),
    [
        ({"manifest": {"nonsense": 1}}, "MANIFEST", "manifest.nonsense"),
        ({"manifest": {"version": "9"}}, "CONFLICTING_METADATA", "1.2.3"),
        ({"manifest": {"deb": {"maintainer": "x"}}}, "MANIFEST", "manifest.deb.description"),
        ({"manifest": {"source_date_epoch": -1}}, "MANIFEST", "source_date_epoch"),
        ({"target_platform": "linux"}, "PLATFORM", "linux/amd64"),
        ({"source_commit": "main"}, "PROVENANCE", "source_commit"),
    ],
)
async def test_what_is_given_wrongly_is_named(
    world: World, fields: dict[str, Any], code: str, said: str
) -> None:
    failed = await failure(world, *GOOD["wheel"], last=Stage.BUILD, **fields)
    assert failed.code == code, str(failed)
    assert said in str(failed)


async def test_an_artefact_for_another_platform_is_refused(world: World) -> None:
    failed = await failure(world, *GOOD["binary"], target_platform="linux/arm64")
    assert failed.code == "WRONG_PLATFORM"
    assert "linux/amd64" in str(failed)


async def test_what_does_not_say_its_version_asks_for_it(world: World) -> None:
    failed = await failure(world, "tool", elf())
    assert failed.code == "NAME_MISSING"
    assert "version" in str(failed)


async def test_bytes_that_changed_in_the_store_are_not_built(world: World) -> None:
    made = await world.make(*GOOD["jar"], last=Stage.INTAKE)
    sha256 = made.pipeline.artefact
    stored = world.folder / "blobs" / "sha256" / sha256[:2] / sha256
    stored.write_bytes(stored.read_bytes()[:-1] + b"!")
    with pytest.raises(StageFailed) as caught:
        await made.step(Stage.BUILD)
    assert caught.value.code == "BYTES_CHANGED"


async def test_bytes_that_are_gone_are_named(world: World) -> None:
    made = await world.make(*GOOD["jar"], last=Stage.BUILD)
    await world.blobs.delete(made.outcomes[Stage.BUILD]["package"]["sha256"])
    with pytest.raises(StageFailed) as caught:
        await made.step(Stage.SIGN)
    assert caught.value.code == "BYTES_CHANGED"


async def test_a_list_of_files_that_is_not_the_artefacts_is_refused(world: World) -> None:
    made = await world.make(*GOOD["npm"], last=Stage.INTAKE)
    other = await world.make(*GOOD["wheel"], last=Stage.INTAKE)
    made.outcomes[Stage.INTAKE]["files"] = other.outcomes[Stage.INTAKE]["files"]
    with pytest.raises(StageFailed) as caught:
        await made.step(Stage.BUILD)
    assert caught.value.code == "FILE_CHANGED"


async def test_a_server_without_keys_says_what_to_do(world: World) -> None:
    world.keys.clear()
    failed = await failure(world, *GOOD["wheel"])
    assert failed.code == "TRUST_NOT_SET_UP"
    assert "trust init" in str(failed)


async def test_a_typed_package_in_which_nothing_is_found_is_no_clean_bill(world: World) -> None:
    made = await world.make(*GOOD["archive"], last=Stage.SIGN)
    made.outcomes[Stage.INTAKE]["facts"]["type"] = ArtefactType.NPM.value
    with pytest.raises(StageFailed) as caught:
        await made.step(Stage.SBOM)
    assert caught.value.code == "NO_COMPONENTS"
