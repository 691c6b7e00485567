"""``fleetwright packages``: what is there, what is wrong with it, and out of the factory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import grpc
import pytest
from fleetwright.v1 import packaging_service_pb2 as pb

from tests.integration.cli.command import Command
from tests.integration.cli.factory import Factory, sha
from tests.integration.cli.refusals import Refusal
from tests.integration.cli.store_world import CONTENT, CURL, OLD, SBOM, fill, names


@pytest.fixture(autouse=True)
def store(factory: Factory) -> None:
    """curl 8.1, which is released, and 8.0, which is not any more."""
    fill(factory)


async def test_packages_are_listed_with_what_is_known_of_them(packager: Command, factory: Factory) -> None:
    ended = await packager("packages", "list", "--name", "curl", "--decision", "pass", "--decision", "fail")
    assert ended.lines[0].split()[:4] == ["PACKAGE", "PLATFORM", "CHANNEL", "DECISION"]
    assert [word in ended.lines[1] for word in ("curl@8.1", "stable", "PASS", "1 low", "1,200")] == [True] * 5
    assert [asked.filter for asked in factory.of(pb.ListPackagesRequest)] == [
        'package_name = "curl" AND decision = (PASS OR FAIL)'
    ]


@pytest.mark.parametrize(
    "name",
    ["curl@8.1", CURL, CURL.removeprefix("packages/"), f"sha256:{CURL[9:]}"],
    # The digest is another one in each process of a run.
    ids=["name and version", "name of the contract", "digest", "digest with its algorithm"],
)
async def test_a_package_is_shown_by_its_name_or_its_digest(packager: Command, name: str) -> None:
    ended = await packager("packages", "show", name)
    assert ended.lines[0].split() == ["Name:", CURL]
    assert "Files:           6 of 8 are of a known component (75 %)" in ended.lines
    assert "Attestations:    sbom, scan" in ended.lines


async def test_a_package_that_is_not_released_says_so_with_its_reasons(packager: Command) -> None:
    ended = await packager("packages", "show", "curl@8.0")
    assert "Because:         critical: CVE-2029-1" in ended.lines
    assert "Because:         unknown: CVE-2029-7" in ended.lines
    assert "Channel:         in none: no agent can have it" in ended.lines


async def test_a_name_of_several_packages_chooses_none_of_them(packager: Command) -> None:
    ended = await packager("packages", "show", "curl")
    assert (ended.status, ended.out) == (2, "")
    assert ended.errors.splitlines() == [
        "error: curl: several packages are called so: name one with its version, or by packages/SHA256",
        f"  curl@8.1  linux/amd64  PASS  {CURL}",
        f"  curl@8.0  linux/amd64  FAIL  {OLD}",
    ]


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("wget", 3, "wget: there is no such package"),
        ("curl@9", 3, "curl@9: there is no such package"),
        ("packages/abc", 2, "64 hexadecimal digits"),
        ("pipelines/none", 3, "there is no pipelines/none"),
        (f"packages/{'0' * 64}", 3, "there is no packages/"),
    ],
)
async def test_a_package_that_there_is_not_is_not_found(
    packager: Command, name: str, status: int, said: str
) -> None:
    ended = await packager("packages", "findings" if "pipelines" in name else "show", name)
    assert (ended.status, ended.out) == (status, "")
    assert said in ended.errors


async def test_the_package_of_a_pipeline_is_meant_by_the_pipeline(
    packager: Command, factory: Factory
) -> None:
    factory.pipelines["pipelines/p1"] = pb.Pipeline(name="pipelines/p1")
    ended = await packager("packages", "findings", "pipelines/p1")
    assert (ended.status, "has made no package yet" in ended.errors) == (3, True)
    factory.pipelines["pipelines/p1"].package = CURL
    assert (await packager("packages", "findings", "pipelines/p1")).status == 0
    assert [asked.package for asked in factory.of(pb.ListFindingsRequest)] == [CURL]


async def test_findings_say_what_fixes_them_and_what_covers_them(packager: Command, factory: Factory) -> None:
    factory.findings = [
        pb.Finding(
            vulnerability="CVE-2029-1",
            aliases=["CVE-2029-1", "GHSA-1"],
            severity="critical",
            component="pkg:deb/debian/zlib@1",
            fixed_version="1.1",
            state="affected",
            exception="exceptions/e1",
            score=9.8,
            matched="introduced 0, fixed 1.1 of DSA-1",
        )
    ]
    ended = await packager("packages", "findings", "curl@8.1")
    assert ended.lines[1].split()[:4] == ["CVE-2029-1", "critical", "pkg:deb/debian/zlib@1", "1.1"]
    assert ended.lines[1].endswith("affected, exceptions/e1")
    wide = await packager("packages", "findings", "curl@8.1", "-o", "wide")
    assert "9.8" in wide.out
    assert "introduced 0, fixed 1.1 of DSA-1" in wide.out
    assert "GHSA-1" in wide.out


@pytest.mark.parametrize("words", [("findings", "curl@8.1"), ("log", "p1"), ("watch", "p1")])
async def test_what_has_no_name_is_not_printed_by_name(packager: Command, words: Sequence[str]) -> None:
    ended = await packager("packages", *words, "-o", "name")
    assert (ended.status, ended.out) == (2, "")
    assert "no names" in ended.errors


async def test_names_of_packages_are_offered_on_tab(packager: Command, factory: Factory) -> None:
    line = "fleetwright packages show cu"
    asked = packager.having(_FLEETWRIGHT_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD="3")
    ended = await asked()
    assert (ended.status, ended.lines, ended.errors) == (0, ["curl"], "")
    assert [one.filter for one in factory.of(pb.ListPackagesRequest)] == ['package_name = "cu*"']


# Out of the factory


async def test_a_package_is_downloaded_under_the_name_of_its_file(
    packager: Command, factory: Factory, home: Path
) -> None:
    ended = await packager("packages", "download", "curl@8.1")
    assert (ended.status, ended.out) == (0, f"curl_8.1_amd64.deb: {CURL}, 293.0 KiB\n")
    assert (home / "curl_8.1_amd64.deb").read_bytes() == CONTENT
    assert names(home) == ["curl_8.1_amd64.deb"]


async def test_a_download_that_is_cut_off_goes_on_by_itself(
    packager: Command, factory: Factory, home: Path
) -> None:
    factory.cuts = [65_536, 196_608]
    ended = await packager("packages", "download", "curl@8.1", "--out", "curl.deb", "-o", "json")
    assert ended.document == {
        "file": "curl.deb",
        "package": CURL,
        "part": "package",
        "sizeBytes": len(CONTENT),
        "sha256": sha(CONTENT),
    }
    assert (home / "curl.deb").read_bytes() == CONTENT
    assert factory.offsets == [0, 65_536, 196_608]


async def test_a_download_that_was_ended_goes_on_with_the_same_command(
    packager: Command, factory: Factory, home: Path
) -> None:
    (home / "curl.deb.part").write_bytes(CONTENT[:100_000])
    ended = await packager("packages", "download", "curl@8.1", "--out", "curl.deb")
    assert ended.status == 0
    assert factory.offsets == [100_000]
    assert (home / "curl.deb").read_bytes() == CONTENT


@pytest.mark.parametrize("left", [b"something else", CONTENT + b"and more"])
async def test_what_an_earlier_command_left_of_something_else_is_thrown_away(
    packager: Command, factory: Factory, home: Path, left: bytes
) -> None:
    (home / "curl.deb.part").write_bytes(left)
    ended = await packager("packages", "download", "curl@8.1", "--out", "curl.deb")
    assert ended.status == 0
    assert factory.offsets == [len(left), 0]
    assert (home / "curl.deb").read_bytes() == CONTENT


async def test_what_is_whole_already_is_not_asked_for_again(
    packager: Command, factory: Factory, home: Path
) -> None:
    (home / "curl.deb.part").write_bytes(CONTENT)
    assert (await packager("packages", "download", "curl@8.1", "--out", "curl.deb")).status == 0
    assert factory.offsets == []


async def test_bytes_that_were_swapped_are_not_kept(packager: Command, factory: Factory, home: Path) -> None:
    factory.parts["package"] = CONTENT[:-1] + b"?"
    ended = await packager("packages", "download", "curl@8.1", "--out", "curl.deb")
    assert (ended.status, ended.out) == (1, "")
    assert "not what its digest says: do not use it" in ended.errors
    assert names(home) == []


async def test_a_download_overwrites_nothing(packager: Command, factory: Factory, home: Path) -> None:
    (home / "precious").write_text("precious")
    (home / "curl.deb.part").symlink_to("precious")
    (home / "curl.deb").symlink_to("nowhere")
    ended = await packager("packages", "download", "curl@8.1", "--out", "precious")
    assert (ended.status, "precious: exists already" in ended.errors) == (1, True)
    assert (await packager("packages", "download", "curl@8.1", "--out", "curl.deb")).status == 1
    (home / "curl.deb").unlink()
    assert (await packager("packages", "download", "curl@8.1", "--out", "curl.deb")).status == 1
    assert (home / "precious").read_text() == "precious"


async def test_a_server_does_not_choose_where_a_file_is_written(
    packager: Command, factory: Factory, home: Path
) -> None:
    factory.packages[0].target_path = "stable/curl/.."
    await packager("packages", "download", "curl@8.1")
    factory.packages[0].target_path = ""
    factory.packages[0].package_name = "../curl"
    await packager("packages", "download", CURL)
    assert names(home) == ["curl-8.1", "package"]
    assert all((home / name).read_bytes() == CONTENT for name in names(home))


async def test_an_attestation_is_downloaded_by_its_kind(
    packager: Command, factory: Factory, home: Path
) -> None:
    ended = await packager("packages", "download", "curl@8.1", "--part", "sbom", "-o", "name")
    assert (home / ended.out.strip()).read_bytes() == SBOM
    refused = await packager("packages", "download", "curl@8.1", "--part", "poem")
    assert refused.status == 3
    assert "has package, sbom, scan" in refused.errors


async def test_a_bundle_that_is_cut_off_is_begun_again(
    packager: Command, factory: Factory, home: Path
) -> None:
    factory.cuts = [131_072]
    ended = await packager("packages", "export", "curl@8.1", "--out", "curl.zip")
    assert ended.status == 0
    assert (home / "curl.zip").read_bytes() == b"PK" + CONTENT
    assert factory.offsets == [0, 0]


async def test_a_bundle_of_a_package_that_is_not_released_is_refused(
    packager: Command, factory: Factory, home: Path
) -> None:
    said = "it is not released: policy refuses it"
    factory.refusals["ExportBundle"] = [
        Refusal(grpc.StatusCode.FAILED_PRECONDITION, "PACKAGE_NOT_RELEASED", said)
    ]
    ended = await packager("packages", "export", "curl@8.0")
    assert (ended.status, ended.errors) == (1, f"error: {said}\n")
    assert names(home) == []
