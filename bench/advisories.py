"""Advisories: the time of an import, and of a scan beside a bare lookup of the same keys.

``python -m bench.advisories [FOLDER]`` with a folder of OSV exports (``<ecosystem>/all.zip``); without one,
an export is made up. One JSON object a line on standard output, progress on standard error. The scan is of
1,000 components that all have advisories, the worst case; its yardstick asks SQLite for the entries of each
of the same packages by a statement of its own, and does nothing with them.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

from controlplane.bootstrap.serving import _settle_memory
from controlplane.clock import SystemClock
from controlplane.packaging.advisories import rows
from controlplane.packaging.advisories.importing import Stage
from controlplane.packaging.advisories.names import base
from controlplane.packaging.advisories.service import AdvisoriesService
from controlplane.packaging.advisories.versions import VersionError, key
from controlplane.packaging.records import Component
from controlplane.storage.migrate import upgrade
from controlplane.storage.opening import open_database

COMPONENTS = 1_000
OLD = 10
"""One component in so many has the oldest version that an advisory tells of; the others have the newest."""
IMPORT_SECONDS = 30.0
SCAN_RATIO = 20.0
WINDOWS = 5
_AGE = timedelta(days=36_500)
_MADE_UP = 12_000
_KEY = (
    "SELECT advisory_id, affected FROM advisory_packages "
    "WHERE import_version = ? AND ecosystem = ? AND name = ?"
)
_KINDS = {"PyPI": "pypi", "Go": "golang", "npm": "npm", "Maven": "maven", "Debian": "deb/debian"}

Key = tuple[int, str, str]


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def _line(name: str, unit: str, yardstick: float | None, value: float, budget: float, of: str) -> None:
    ratio = value / yardstick if yardstick else None
    bounded = value if ratio is None else ratio
    told = {
        "name": name,
        "unit": unit,
        "yardstick": yardstick,
        "value": round(value, 3),
        "ratio": None if ratio is None else round(ratio, 2),
        "budget": f"at most {budget:g} {of}",
        "met": bounded <= budget,
    }
    print(json.dumps(told), flush=True)


def make_up(folder: Path) -> Path:
    """Make an export of records like those of PyPI; returns its folder."""
    path = folder / "PyPI" / "all.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(_MADE_UP):
            events = [{"introduced": "0"}, {"fixed": f"{number % 7}.{number % 13}"}]
            record = {
                "id": f"PYSEC-2024-{number}",
                "modified": "2024-05-01T00:00:00Z",
                "aliases": [f"CVE-2024-{10_000 + number}"],
                "details": f"What package {number} does wrong. " * 40,
                "affected": [
                    {
                        "package": {"ecosystem": "PyPI", "name": f"package-{number % 4_000}"},
                        "ranges": [{"type": "ECOSYSTEM", "events": events}],
                        "versions": [f"0.{one}" for one in range(number % 60)],
                    }
                ],
            }
            archive.writestr(f"{record['id']}.json", json.dumps(record))
    return folder


def chosen(path: Path) -> tuple[list[Key], list[Component]]:
    """Return keys spread evenly over what is in force, and a component of each at a version told of."""
    connection = sqlite3.connect(path)
    try:
        found = connection.execute(
            "SELECT p.import_version, p.ecosystem, p.name, max(p.affected) FROM advisory_packages p "
            "JOIN advisory_imports i ON i.version = p.import_version WHERE i.state = 'in_force' "
            "GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
        ).fetchall()
    finally:
        connection.close()
    step = max(1, len(found) // COMPONENTS)
    sample = found[::step][:COMPONENTS]
    keys = [(version, ecosystem, name) for version, ecosystem, name, _ in sample]
    return keys, [_component(*one[1:], old=number % OLD == 0) for number, one in enumerate(sample)]


def _component(ecosystem: str, name: str, stored: bytes, *, old: bool) -> Component:
    told = {
        event.version
        for block in rows.decode(ecosystem, name, stored)
        for one in block.ranges
        for event in one.events
        if event.version != "0"
    }
    version = "1.0.0"
    with suppress(VersionError):
        version = (min if old else max)(told, key=lambda text: key(ecosystem, text), default=version)
    kind = _KINDS.get(base(ecosystem), "rpm")
    return Component(ecosystem, name, version, f"pkg:{kind}/{name}@{version}?distro={ecosystem}")


def bare(path: Path, keys: Sequence[Key]) -> tuple[float, int]:
    """Return the CPU seconds that a bare lookup of the keys takes, and how many entries it finds."""
    connection = sqlite3.connect(path)
    try:
        began = time.process_time()
        found = sum(len(connection.execute(_KEY, key).fetchall()) for key in keys)
        return time.process_time() - began, found
    finally:
        connection.close()


async def _measure(folder: Path, exports: Path) -> bool:
    path = folder / "fleetwright.db"
    upgrade(path)
    database = open_database(path)
    service = AdvisoriesService(database, SystemClock())

    def progress(stage: Stage) -> None:
        _say(f"{stage.ecosystem}: {stage.read:,} of {stage.total:,} records")

    try:
        began = time.perf_counter()
        done = await service.import_path(exports, progress=progress)
        seconds = time.perf_counter() - began
        for one in done:
            _say(f"{one.ecosystem}: {one.records:,} records, {one.entries:,} entries of packages")
        _line("advisories-import", "s", None, seconds, IMPORT_SECONDS, "s")
        keys, components = chosen(path)
        _settle_memory()
        ratio = await _scan(service, path, keys, components)
    finally:
        await database.close()
    return seconds <= IMPORT_SECONDS and ratio <= SCAN_RATIO


async def _scan(
    service: AdvisoriesService, path: Path, keys: Sequence[Key], components: Sequence[Component]
) -> float:
    yardsticks, values = [], []
    scanned: Any = None
    for _ in range(WINDOWS):
        seconds, entries = bare(path, keys)
        yardsticks.append(seconds)
        began = time.process_time()
        scanned = await service.scan(components, max_age=_AGE)
        values.append(time.process_time() - began)
    _say(
        f"{len(components):,} components, {entries:,} entries, {len(scanned.findings):,} findings; first "
        f"{values[0] * 1e3:.0f} ms, later ones {median(values[1:]) * 1e3:.0f} ms"
    )
    # The first one counts too: a worker that starts has no version remembered.
    first = values[0] / yardsticks[0]
    _say(f"ratio of the first scan: {first:.1f}")
    _line(
        "advisories-scan",
        "ms of CPU",
        median(yardsticks) * 1e3,
        median(values) * 1e3,
        SCAN_RATIO,
        "times the yardstick",
    )
    return median(values) / median(yardsticks)


def main() -> None:
    """Measure, and end with status 1 where a budget is missed."""
    with tempfile.TemporaryDirectory(prefix="fleetwright-bench-") as folder:
        exports = Path(sys.argv[1]) if len(sys.argv) > 1 else make_up(Path(folder))
        met = asyncio.run(_measure(Path(folder), exports))
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
