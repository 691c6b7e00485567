"""Clients in other languages, generated from the published contract alone, against the real server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.consumers import examples
from tests.consumers.conftest import Target
from tests.consumers.installed import REPOSITORY

MADE = shutil.ignore_patterns("node_modules", "gen", "dist")
GO = shutil.which("go", path=f"{os.environ.get('PATH', '')}:/usr/local/go/bin")


@pytest.fixture
def contract(tmp_path: Path) -> Path:
    """Return a folder with what is published: the contract, what it imports, and the clients' sources."""
    folder = tmp_path / "published"
    folder.mkdir()
    shutil.copy(REPOSITORY / "buf.yaml", folder)
    shutil.copytree(REPOSITORY / "proto" / "fleetwright", folder / "proto" / "fleetwright")
    shutil.copytree(REPOSITORY / "third_party", folder / "third_party")
    shutil.copytree(REPOSITORY / "clients", folder / "clients", ignore=MADE)
    return folder


def build(contract: Path, language: str) -> Path:
    """Generate and compile a client; return its folder."""
    command = [str(REPOSITORY / "scripts" / "clients"), str(contract), language]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return contract / "clients" / language


@pytest.mark.slow
@pytest.mark.timeout(600)  # the first run fetches and compiles; later ones find it in .cache
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
async def test_the_typescript_client_does_its_job(contract: Path, target: Target) -> None:
    folder = build(contract, "typescript")
    command = ["node", "dist/src/example.js", *target]
    examples.check(await examples.said(*command, cwd=folder, variables={"PATH": os.environ["PATH"]}))


@pytest.mark.slow
@pytest.mark.timeout(600)  # as above
@pytest.mark.skipif(GO is None, reason="Go is not installed")
async def test_the_go_client_does_its_job(contract: Path, target: Target) -> None:
    folder = build(contract, "go")
    examples.check(await examples.said(folder / "dist" / "example", *target, cwd=folder, variables={}))


def test_the_lock_of_the_typescript_client_names_no_registry() -> None:
    packages = json.loads((REPOSITORY / "clients/typescript/package-lock.json").read_text("utf-8"))[
        "packages"
    ]
    assert [name for name, package in packages.items() if "resolved" in package] == []
    assert [name for name, package in packages.items() if name and "integrity" not in package] == []


def test_a_language_that_there_is_no_client_for_is_refused() -> None:
    command = [str(REPOSITORY / "scripts" / "clients"), "cobol"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "clients: unknown language 'cobol': typescript or go\n")
