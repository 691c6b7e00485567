"""From a file to a verified bundle and to agents, by commands alone, through a real server and its stages."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from controlplane.trust import setup
from controlplane.trust.layout import Layout
from controlplane.trust.tuf.ceremony import initialise
from controlplane.trust.tuf.roles import Expiries, Thresholds
from tests.integration.cli.command import Command, Ended
from tests.support.in_process import LocalSite, serving
from tests.unit.packaging.archives import good

WHEEL = "demo_pkg-1.2.3-py3-none-any.whl"
CRITICAL = [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}]


def record(name: str, ident: str, minutes: int, **more: Any) -> dict[str, Any]:
    modified = datetime.now(UTC) - timedelta(minutes=minutes)
    affected = [{"package": {"ecosystem": "PyPI", "name": name}, "versions": ["1.2.3"]}]
    return {"id": ident, "modified": f"{modified:%Y-%m-%dT%H:%M:%SZ}", "affected": affected, **more}


def export(path: Path, *records: dict[str, Any]) -> None:
    """Write records as an export of PyPI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for one in records:
            archive.writestr(f"{one['id']}.json", json.dumps(one))


@pytest.fixture
async def site(folder: Path, home: Path) -> AsyncIterator[LocalSite]:
    """The real server, with keys; whoever types has the trusted root."""
    made = initialise(
        folder.parent / "offline",
        Layout(folder).release_trust,
        now=datetime.now(UTC),
        thresholds=Thresholds(),
        expiries=Expiries(),
        channels=["stable", "beta"],
    )
    (home / "root.json").write_bytes(made.trusted_root.read_bytes())
    # Each server of these tests reads foreign bytes as a user of its own.
    async with serving(folder, isolation_uid=60_000 + os.getpid() % 5_000) as running:
        yield running


@pytest.fixture
def other(site: LocalSite, command: Command) -> Command:
    """The command, typed by somebody else."""
    return command.calling(site, setup.issue_identity(site.folder, "operator", "ada", datetime.now(UTC)))


def done(ended: Ended) -> Ended:
    assert ended.status == 0, ended
    return ended


async def test_a_wheel_is_built_exported_verified_and_deployed(
    fleetwright: Command, command: Command, home: Path, agents: list[str]
) -> None:
    (home / WHEEL).write_bytes(good.wheel())
    export(home / "osv" / "PyPI" / "all.zip", record("other", "TEST-1", 60))
    imported = done(await fleetwright("advisories", "import", "osv"))
    assert imported.lines[1].split()[:3] == ["PyPI", "CURRENT", "1"]
    built = done(await fleetwright("packages", "build", WHEEL, "--wait", "-o", "json")).document
    assert (built["state"], built["packageName"]) == ("PIPELINE_STATE_PASSED", "demo-pkg")

    done(await fleetwright("packages", "download", "demo-pkg", "--out", "demo.tar.gz"))
    done(await fleetwright("packages", "export", "demo-pkg@1.2.3", "--out", "demo.zip"))
    verified = done(await command("packages", "verify", "demo.zip", "--root", "root.json"))
    assert all(line.split()[1] == "ok" for line in verified.lines[1:])

    deployed = done(await fleetwright("packages", "deploy", "demo-pkg", "--to", "labels.site = north"))
    assert deployed.errors == "3 tasks\n"
    listed = done(
        await fleetwright("packages", "deployments", "--package", "demo-pkg", "-o", "json")
    ).document
    assert sorted(one["agent"] for one in listed["deployments"]) == [f"agents/{name}" for name in agents]


async def test_a_refused_package_is_borne_for_a_time_once_somebody_else_says_so(
    fleetwright: Command, other: Command, home: Path
) -> None:
    (home / WHEEL).write_bytes(good.wheel())
    export(home / "all.zip", record("demo-pkg", "TEST-2", 60, aliases=["CVE-2030-1234"], severity=CRITICAL))
    done(await fleetwright("advisories", "import", "all.zip", "--ecosystem", "PyPI"))
    built = await fleetwright("packages", "build", WHEEL, "--wait")
    assert built.status == 1
    assert "is REFUSED: " in built.errors
    assert "CVE-2030-1234" in built.errors
    findings = done(await fleetwright("packages", "findings", "demo-pkg"))
    assert findings.lines[1].split()[:2] == ["CVE-2030-1234", "critical"]
    assert (await fleetwright("packages", "deploy", "demo-pkg", "--to", "*")).status == 1

    asked = done(
        await fleetwright(
            *("packages", "exceptions", "create", "demo-pkg", "CVE-2030-1234", "--for", "1h"),
            *("--reason", "a test", "-o", "name"),
        )
    )
    name = asked.out.strip()
    assert (await fleetwright("packages", "exceptions", "approve", name)).status == 4
    done(await other("packages", "exceptions", "approve", name))
    listed = done(await fleetwright("packages", "list", "--decision", "EXCEPTION")).lines
    assert "demo-pkg@1.2.3" in listed[1]
    done(await fleetwright("packages", "deploy", "demo-pkg", "--to", "*", "--allow-empty"))
    done(await fleetwright("packages", "exceptions", "revoke", name))
    assert (await fleetwright("packages", "deploy", "demo-pkg", "--to", "*")).status == 1


async def test_without_current_advisories_nothing_passes(fleetwright: Command, home: Path) -> None:
    (home / WHEEL).write_bytes(good.wheel())
    built = await fleetwright("packages", "build", WHEEL, "--wait")
    assert built.status == 1
    assert "is ERROR: SCAN" in built.errors
    name = (await fleetwright("packages", "pipelines", "-o", "name")).out.strip()
    export(home / "all.zip", record("other", "TEST-1", 60))
    done(await fleetwright("advisories", "import", "all.zip"))
    done(await fleetwright("packages", "retry", name, "--wait"))
