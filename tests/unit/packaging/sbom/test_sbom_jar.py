"""Java archives: coordinates where they are known, and a plain word where they are not."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from controlplane.packaging.records import ArtefactType
from controlplane.packaging.sbom.cataloguers.jar import UNKNOWN, properties
from controlplane.packaging.sbom.coverage import coverage_of
from controlplane.packaging.sbom.errors import BadMetadata
from tests.unit.packaging.sbom.trees import by_purl, inventory, zipped

MANIFEST = (
    "Manifest-Version: 1.0\r\n"
    "Bundle-SymbolicName: org.exam\r\n ple.demo;singleton:=true\r\n"
    "Bundle-Version: 1.5\r\n"
)
SYSTEM_JARS = Path("/usr/share/java")


def pom(group: str, artifact: str, version: str) -> dict[str, str | bytes]:
    text = f"#Generated\nversion={version}\ngroupId={group}\nartifactId={artifact}\n"
    return {f"META-INF/maven/{group}/{artifact}/pom.properties": text}


def test_coordinates_come_from_pom_properties(tmp_path: Path) -> None:
    files = {
        **pom("org.example", "demo", "1.0"),
        "META-INF/MANIFEST.MF": MANIFEST,
        "org/A.class": b"\xca\xfe\xba\xbe",
    }
    taken = inventory(tmp_path, ArtefactType.JAR, files)
    (own,) = taken.components
    assert (own.purl, own.name, own.ecosystem) == (
        "pkg:maven/org.example/demo@1.0",
        "org.example:demo",
        "Maven",
    )
    assert coverage_of(taken).share == 1.0


def test_a_jar_without_coordinates_says_so_and_pretends_none(tmp_path: Path) -> None:
    (own,) = inventory(tmp_path, ArtefactType.JAR, {"META-INF/MANIFEST.MF": MANIFEST}).components
    assert (own.purl, own.ecosystem, own.notes) == ("pkg:generic/org.example.demo@1.5", "", [UNKNOWN])


def test_debians_repository_says_the_coordinates_of_a_jar_that_does_not(tmp_path: Path) -> None:
    jar = zipped({"META-INF/MANIFEST.MF": "Manifest-Version: 1.0\n"})
    folder = "data/usr/share/maven-repo/commons-collections/commons-collections"
    files: dict[str, str | bytes] = {
        "control/control": "Package: libcommons-collections3-java\nVersion: 3.2.2-2\nArchitecture: all\n",
        "data/usr/share/java/commons-collections3-3.2.2.jar": jar,
        f"{folder}/3.2.2/commons-collections-3.2.2.pom": "<project/>",
        f"{folder}/debian/commons-collections-debian.pom": "<project/>",
        "data/usr/share/maven-repo/org/parent/1/parent-1.pom": "<project/>",
    }
    links = {
        "data/usr/share/java/commons-collections3.jar": "commons-collections3-3.2.2.jar",
        f"{folder}/3.2.2/commons-collections-3.2.2.jar": "../../../../java/commons-collections3.jar",
    }
    found = by_purl(inventory(tmp_path, ArtefactType.DEB, files, links))
    named = found["pkg:maven/commons-collections/commons-collections@3.2.2"]
    assert named.name == "commons-collections:commons-collections"
    assert "data/usr/share/java/commons-collections3-3.2.2.jar" in named.files
    # Neither Debian's alias, nor a parent without a jar, nor a made-up name of the jar.
    assert len(found) == 2


def test_jars_within_a_jar_are_components_that_claim_their_file(tmp_path: Path) -> None:
    innermost = zipped(pom("g", "deep", "3"))
    inner = zipped({**pom("g", "inner", "2"), "lib/deep.jar": innermost})
    plain = zipped({"a": "b"})
    libraries: dict[str, str | bytes] = {
        "BOOT-INF/lib/inner-2.jar": inner,
        "BOOT-INF/lib/plain-4.1.jar": plain,
    }
    taken = inventory(tmp_path, ArtefactType.JAR, {**pom("g", "demo", "1"), **libraries})
    found = by_purl(taken)
    assert list(found) == ["pkg:maven/g/deep@3", "pkg:maven/g/demo@1", "pkg:maven/g/inner@2"]
    assert found["pkg:maven/g/inner@2"].files == ["BOOT-INF/lib/inner-2.jar"]
    assert found["pkg:maven/g/deep@3"].files == ["BOOT-INF/lib/inner-2.jar"]
    assert coverage_of(taken).unclaimed == ["BOOT-INF/lib/plain-4.1.jar"]


def test_jars_that_the_reader_extracted_beside_their_file_are_found_once(tmp_path: Path) -> None:
    files = {f"lib/a.jar!/{path}": text for path, text in pom("g", "a", "1").items()}
    (own,) = inventory(tmp_path, ArtefactType.ARCHIVE, files).components
    assert (own.purl, own.files) == ("pkg:maven/g/a@1", list(files))


def test_a_jar_with_merged_dependencies_is_claimed_by_the_one_it_is_named_after(tmp_path: Path) -> None:
    files = {**pom("g", "demo", "1"), **pom("h", "merged", "2"), "g/A.class": "x"}
    found = by_purl(inventory(tmp_path, ArtefactType.JAR, files))
    assert "g/A.class" in found["pkg:maven/g/demo@1"].files
    assert found["pkg:maven/h/merged@2"].files == ["META-INF/maven/h/merged/pom.properties"]


def test_a_merged_jar_within_an_archive_is_its_namesakes(tmp_path: Path) -> None:
    jar = zipped({**pom("g", "a", "1"), **pom("g", "a-core", "2")})
    found = by_purl(inventory(tmp_path, ArtefactType.ARCHIVE, {"lib/a-core-2.jar": jar}))
    assert set(found) == {"pkg:maven/g/a@1", "pkg:maven/g/a-core@2"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=b", {"a": "b"}),
        ("a : b", {"a": "b"}),
        ("a b", {"a": "b"}),
        ("  a = b = c", {"a": "b = c"}),
        ("# no\n! no\n\na=1\r\nb=2", {"a": "1", "b": "2"}),
        ("a=x\\\n   y", {"a": "xy"}),
        ("a=\\u0062\\=\\\\", {"a": "b=\\"}),
        ("alone", {"alone": ""}),
    ],
)
def test_properties_are_read_as_java_reads_them(text: str, expected: dict[str, str]) -> None:
    assert properties("x", text) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("groupId=g\nartifactId=a\n", "version is missing"),
        ("version=\ngroupId=g\n", "version is missing"),
        ("version=${project.version}\n", "placeholder"),
        ("version=1\x01\n", "cannot be printed"),
        ("version=1\ngroupId=\n", "groupId is missing"),
    ],
)
def test_bad_coordinates_of_the_jar_itself_are_refused_with_their_reason(
    tmp_path: Path, text: str, complaint: str
) -> None:
    with pytest.raises(BadMetadata, match=complaint):
        inventory(tmp_path, ArtefactType.JAR, {"META-INF/maven/g/a/pom.properties": text})


def lying_size(data: bytes) -> bytes:
    at = data.rfind(b"PK\x05\x06")
    return data[: at + 12] + struct.pack("<I", 0x7FFFFFFF) + data[at + 16 :]


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "cannot be read as one"),
        (b"PK\x03\x04 no zip at all", "cannot be read as one"),
        (zipped({"a": "b" * 100})[:60], "cannot be read as one"),
        (lying_size(zipped({"a": "b"})), "its directory has"),
        (zipped({"META-INF/MANIFEST.MF": b"A: b\n" * 1_000_000}), "unpacks to more than"),
    ],
    ids=["empty", "no zip", "cut", "lying", "bomb"],
)
def test_a_broken_or_hostile_archive_within_a_package_is_a_problem(
    tmp_path: Path, data: bytes, complaint: str
) -> None:
    taken = inventory(tmp_path, ArtefactType.ARCHIVE, {"lib/bad.jar": data})
    (problem,) = taken.problems
    assert problem.startswith("lib/bad.jar")
    assert complaint in problem
    assert coverage_of(taken).claimed == 0


def test_archives_that_lie_in_each_other_without_end_are_a_problem(tmp_path: Path) -> None:
    data = zipped({"a": "b"})
    for _ in range(10):
        data = zipped({"next.jar": data})
    assert "deep in it" in inventory(tmp_path, ArtefactType.ARCHIVE, {"lib/bad.jar": data}).problems[0]


@pytest.mark.skipif(
    not (SYSTEM_JARS / "commons-io.jar").exists(), reason="Debian's libcommons-io-java is not installed"
)
def test_debians_real_jars_are_named_by_their_coordinates_or_not_at_all(tmp_path: Path) -> None:
    jars = [path for path in SYSTEM_JARS.glob("*.jar") if path.stat().st_size < 2**23]
    taken = inventory(
        tmp_path, ArtefactType.ARCHIVE, {f"lib/{path.name}": path.read_bytes() for path in jars}
    )
    assert taken.problems == []
    assert any(component.name == "commons-io:commons-io" for component in taken.components)
    for component in taken.components:
        assert (component.ecosystem == "Maven") == component.purl.startswith("pkg:maven/")
        assert component.ecosystem or component.notes


def test_a_password_protected_member_is_a_problem(tmp_path: Path) -> None:
    data = bytearray(zipped({"META-INF/MANIFEST.MF": "Manifest-Version: 1.0\n"}))
    for signature, flag_at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.find(signature) + flag_at] |= 1
    assert (
        "cannot be unpacked" in inventory(tmp_path, ArtefactType.ARCHIVE, {"a.jar": bytes(data)}).problems[0]
    )
