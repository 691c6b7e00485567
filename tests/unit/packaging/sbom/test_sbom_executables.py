"""Go programs, by what their linker wrote into them; and single binaries."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.packaging.records import ArtefactType
from controlplane.packaging.sbom.errors import BadMetadata
from controlplane.packaging.sbom.inventory import take_inventory
from tests.unit.packaging.sbom.executables import elf, inline, macho, pe, pointed, universal
from tests.unit.packaging.sbom.trees import SHA256, by_purl, facts, inventory, write

EXPECTED = {
    "pkg:golang/example.com/demo",
    "pkg:golang/example.com/forked@v0.3.0",
    "pkg:golang/github.com/BurntSushi/toml@v1.2.0",
    "pkg:golang/golang.org/x/net@v0.2.0",
}
IMAGES: dict[str, bytes] = {
    "elf64": elf(inline()),
    "elf64 without sections": elf(inline(), section=False),
    "elf64 of the other order": elf(inline(), order=">"),
    "elf32": elf(inline(), wide=False),
    "elf64, pointers": elf(pointed("<", 8)),
    "elf32 of the other order, pointers": elf(pointed(">", 4), order=">", wide=False),
    "pe64": pe(inline()),
    "pe32": pe(inline(), wide=False),
    "mach-o 64": macho(inline()),
    "mach-o 32": macho(inline(), wide=False),
    "mach-o of the other order": macho(inline(), order=">"),
    "universal": universal(macho(inline()), macho(inline())),
}


@pytest.mark.parametrize("data", IMAGES.values(), ids=IMAGES)
def test_modules_are_found_in_every_format(tmp_path: Path, data: bytes) -> None:
    taken = inventory(tmp_path, ArtefactType.ARCHIVE, {"bin/demo": data})
    found = by_purl(taken)
    assert taken.problems == []
    assert set(found) - EXPECTED <= {"pkg:golang/stdlib@1.21.5", "pkg:golang/stdlib@1.16"}
    assert set(found) >= EXPECTED
    assert all(component.files == ["bin/demo"] for component in found.values())


def test_the_standard_library_has_the_toolchains_version(tmp_path: Path) -> None:
    found = by_purl(inventory(tmp_path, ArtefactType.ARCHIVE, {"demo": elf(inline())}))
    stdlib = found["pkg:golang/stdlib@1.21.5"]
    assert (stdlib.ecosystem, stdlib.name, stdlib.version) == ("Go", "stdlib", "1.21.5")


def test_a_replaced_module_is_what_replaced_it(tmp_path: Path) -> None:
    found = by_purl(inventory(tmp_path, ArtefactType.ARCHIVE, {"demo": elf(inline())}))
    assert "pkg:golang/golang.org/x/net@v0.1.0" not in found
    assert "'./forked'" in found["pkg:golang/example.com/forked@v0.3.0"].notes[0]
    assert "no version" in found["pkg:golang/example.com/demo"].notes[0]


def test_a_single_binary_is_a_component_by_itself(tmp_path: Path) -> None:
    taken = inventory(tmp_path, ArtefactType.BINARY, {"demo": b"\x7fELF no more"}, name="demo", version="2")
    (own,) = taken.components
    assert own.purl.startswith("pkg:generic/demo@2?checksum=sha256:")
    assert (own.ecosystem, own.files) == ("", ["demo"])
    assert "does not cover it" in own.notes[0]


def test_a_single_go_binary_is_its_modules(tmp_path: Path) -> None:
    found = by_purl(inventory(tmp_path, ArtefactType.BINARY, {"demo": elf(inline())}))
    assert set(found) == {*EXPECTED, "pkg:golang/stdlib@1.21.5"}


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (elf(inline())[:70], "truncated"),
        (
            elf(inline()).replace(b"\xff Go buildinf:\x08\x02", b"\xff Go buildinf:\x03\x00"),
            "pointers of 3 bytes",
        ),
        (elf(inline(toolchain="go1.21.5" + "x" * 200)[:60]), "truncated"),
        (elf(inline(modules="dep\tonly-a-path\n")), "it is damaged"),
        (elf(inline(modules="=>\tnothing\tbefore\tit\n")), "it is damaged"),
        (elf(inline(modules="dep\t\tv1\n")), "module path is missing"),
        (elf(inline(modules="dep\ta\x01b\tv1\n")), "cannot be printed"),
        (elf(inline(modules="dep\ta/b\tv1\n" * 30_000)), "more than 20000 modules"),
    ],
)
def test_a_damaged_program_is_a_problem_that_names_it(tmp_path: Path, data: bytes, complaint: str) -> None:
    (problem,) = inventory(tmp_path, ArtefactType.ARCHIVE, {"bin/demo": data}).problems
    assert problem.startswith("bin/demo: ")
    assert complaint in problem


@pytest.mark.parametrize(
    "data", [elf(b"\0" * 64), b"MZ" + b"\0" * 100, b"\xca\xfe\xba\xbe\0\0\0\x34" + b"\0" * 100]
)
def test_other_programs_dos_and_java_classes_are_no_go_programs(tmp_path: Path, data: bytes) -> None:
    taken = inventory(tmp_path, ArtefactType.ARCHIVE, {"bin/demo": data})
    assert (taken.components, taken.problems) == ([], [])


builders = st.sampled_from([elf, pe, macho, lambda data: universal(macho(data))])


@settings(max_examples=300, deadline=None)
@given(
    build=builders,
    changes=st.lists(st.tuples(st.integers(0, 2_000), st.binary(min_size=1, max_size=8)), max_size=6),
    cut=st.integers(0, 2_000),
)
def test_any_damage_ends_in_components_or_a_problem(
    tmp_path_factory: pytest.TempPathFactory,
    build: Callable[[bytes], bytes],
    changes: list[tuple[int, bytes]],
    cut: int,
) -> None:
    data = bytearray(build(inline()))
    for at, new in changes:
        data[at : at + len(new)] = new
    root = tmp_path_factory.mktemp("damaged")
    taken = inventory(root, ArtefactType.ARCHIVE, {"bin/demo": bytes(data[: max(64, len(data) - cut)])})
    assert len(taken.problems) <= 1


@pytest.mark.skipif(shutil.which("go") is None, reason="no Go toolchain is installed")
def test_a_real_go_program_says_the_version_that_the_toolchain_says(tmp_path: Path) -> None:
    program = Path(str(shutil.which("go"))).resolve()
    said = subprocess.run([program, "version", program], capture_output=True, text=True, check=True).stdout
    found = by_purl(inventory(tmp_path, ArtefactType.ARCHIVE, {"bin/go": program.read_bytes()}))
    assert f"go{found[next(purl for purl in found if 'stdlib' in purl)].version}" in said.split()


def test_a_file_that_became_a_link_since_it_was_listed_is_refused(tmp_path: Path) -> None:
    entries = write(tmp_path, {"package/package.json": '{"name": "a", "version": "1"}'})
    (tmp_path / "package/package.json").unlink()
    (tmp_path / "package/package.json").symlink_to("/etc/hostname")
    with pytest.raises(BadMetadata, match="another file than was listed"):
        take_inventory(tmp_path, facts(ArtefactType.NPM), SHA256, entries)
