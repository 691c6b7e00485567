"""``fleetwright packages verify``: a bundle's whole chain, without any server."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.trust.bundles import export
from tests.integration.cli.command import Command
from tests.unit.verify.evidence_world import NOW, PACKAGE, PATH, attested, ceremony, repository

AT = f"{NOW:%Y-%m-%dT%H:%M:%SZ}"


@pytest.fixture
def bundle(home: Path) -> Path:
    """A bundle, beside the trusted root, in the folder of who types."""
    (home / "curl.deb").write_bytes(PACKAGE)
    (home / "root.json").write_bytes(ceremony().online.trusted_root)
    return export(
        home / "bundle",
        target=PATH,
        package=home / "curl.deb",
        attestations=attested().lines,
        keys=ceremony().online.key_document,
        state=repository().state,
    )


async def test_a_whole_bundle_is_verified_line_by_line(command: Command, bundle: Path) -> None:
    ended = await command("packages", "verify", "bundle", "--root", "root.json", "--at", AT)
    assert (ended.status, ended.errors) == (0, "")
    assert [line.split()[:2] for line in ended.lines[1:]] == [
        [name, "ok"]
        for name in ("bundle", "tuf", "release", "keys", "attestations", "signature", "provenance", "sbom")
    ] + [["scan", "ok"], ["verdict", "ok"]]


async def test_what_is_missing_is_named(command: Command, bundle: Path) -> None:
    (bundle / "attestations.jsonl").unlink()
    ended = await command("packages", "verify", "bundle", "--root", "root.json", "--at", AT, "-o", "json")
    assert ended.status == 1
    outcomes = {check["name"]: check["outcome"] for check in ended.document["checks"]}
    assert (outcomes["tuf"], outcomes["attestations"]) == ("ok", "missing")
    assert ended.document["ok"] is False
    assert "attestations is missing" in ended.errors


async def test_swapped_bytes_are_wrong(command: Command, bundle: Path) -> None:
    (bundle / "package").write_bytes(PACKAGE[:-1] + b"?")
    ended = await command("packages", "verify", "bundle", "--root", "root.json", "--at", AT)
    assert ended.status == 1
    assert "do not install it" in ended.errors
    assert "release is wrong" in ended.errors


async def test_a_bundle_of_another_time_is_not_current(command: Command, bundle: Path) -> None:
    ended = await command(
        "packages", "verify", "bundle", "--root", "root.json", "--at", "2031-06-01T00:00:00Z"
    )
    assert ended.status == 1
    assert "tuf is wrong" in ended.errors


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("bundle",), 2, "--root"),
        (("bundle", "--root", "nothing.json"), 1, "nothing.json: No such file or directory"),
        (("bundle", "--root", "large.json"), 2, "no trusted root"),
        (("bundle", "--root", "curl.deb", "--at", AT), 1, "do not install it"),
        (("nothing.zip", "--root", "root.json"), 1, "do not install it: bundle is wrong"),
        (("curl.deb", "--root", "root.json"), 1, "do not install it: bundle is wrong"),
        (("bundle", "--root", "root.json", "--at", "noon"), 2, "--at"),
    ],
)
async def test_what_is_no_bundle_or_no_root_is_told(
    command: Command, bundle: Path, home: Path, words: tuple[str, ...], status: int, said: str
) -> None:
    (home / "large.json").write_bytes(b" " * (1024 * 1024 + 1))
    ended = await command("packages", "verify", *words)
    assert ended.status == status
    assert said in ended.errors
