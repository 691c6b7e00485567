"""The database of a data folder: sound, of this program's schema, and its log in bounds."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from controlplane.cli.doctor.findings import Finding, fail, ok, skip, warn
from controlplane.clock import from_micros
from controlplane.settings import Settings
from controlplane.storage import inspection, migrate
from controlplane.storage.inspection import CheckTooLongError
from controlplane.storage.location import Postgres, of_settings
from controlplane.storage.postgresql import inspection as postgresql
from controlplane.storage.unreadable import DatabaseUnreadableError

LEAST_POSTGRESQL = 18
"""The release that is tried; older ones lack what migrations use."""

LONG_LOG = 256 * 1024 * 1024
"""The log is folded into the database every 16 MiB; it grows only while someone reads for long."""

TOLERANCE = timedelta(minutes=1)
"""Between two looks at one clock that is being set."""

# SQLite's own words (sqlite3_errstr) for what is outside of the file.
_OF_THE_DISK = ("full", "unable to open", "readonly", "disk I/O", "locked")

_REMEDY = "stop the server, and put back a backup with `fleetwright restore`"


def database(settings: Settings) -> Iterator[Finding]:
    """Check the file, its schema and its log; of PostgreSQL, the schema and how durable a commit is."""
    try:
        place = of_settings(settings)
    except ValueError as error:
        yield fail("database", f"FLEETWRIGHT_DATABASE_URL: {error}")
        return
    yield from _server(place) if isinstance(place, Postgres) else _file(place)


def _server(place: Postgres) -> Iterator[Finding]:
    try:
        found = postgresql.settings(place)
        schema = inspection.schema_version(place)
    except DatabaseUnreadableError as error:
        yield fail("database", f"{place}: {error}: look whether the server runs, and who may log in")
        return
    version = found["server_version"]
    if int(version.split(".")[0]) < LEAST_POSTGRESQL:
        yield fail(
            "database", f"{place}: PostgreSQL {version}, and {LEAST_POSTGRESQL} is the least: update it"
        )
    else:
        yield ok("database", f"{place}: PostgreSQL {version}")
    unsafe = [name for name in ("fsync", "full_page_writes") if found[name] != "on"]
    if unsafe:
        yield fail("durability", f"{' and '.join(unsafe)} off: what is acknowledged is lost at a power cut")
    else:
        yield ok("durability", "a commit is on the server's disk before it is acknowledged")
    if schema is None:
        yield ok("schema", "there is none yet: the server makes it at its first start")
    else:
        yield _schema(schema)


def _file(path: Path) -> Iterator[Finding]:
    if not path.exists() or path.stat().st_size == 0:
        yield ok("database", "there is none yet: the server makes it at its first start")
        return
    try:
        yield _schema(inspection.schema_version(path))
        damage = inspection.find_damage(path)
    except CheckTooLongError:
        seconds = inspection.CHECK_LIMIT.total_seconds()
        yield skip("database", f"too large to be read whole in {seconds:.0f} s: a backup checks all of it")
    except DatabaseUnreadableError as error:
        yield fail("database", f"{path}: cannot be read ({error}): {_remedy(str(error))}")
        return
    else:
        size = path.stat().st_size / 1024 / 1024
        text = f"{path}: damaged ({damage}): {_REMEDY}"
        yield fail("database", text) if damage else ok("database", f"sound, {size:.1f} MiB")
    yield _log(inspection.log_bytes(path))


def _remedy(said: str) -> str:
    if any(sign in said for sign in _OF_THE_DISK):
        return "look at the disk, its room and who may write the folder; the database itself may be sound"
    return _REMEDY


def _schema(found: str | None) -> Finding:
    wanted = migrate.head()
    if found == wanted:
        return ok("schema", f"{found}, that of this program")
    if found is None:
        return fail("schema", f"the database has no schema of ours: {_REMEDY}")
    if found in migrate.revisions():
        return warn(
            "schema",
            f"{found}: the next start brings it to {wanted}; take a backup first, it is the only way back",
        )
    return fail(
        "schema",
        f"{found}: written by a newer program than this one, which knows {wanted}: install that, or "
        "restore a backup of this one's time",
    )


def _log(size: int) -> Finding:
    if size > LONG_LOG:
        return warn(
            "log",
            f"the database's log has {size >> 20} MiB: something reads it for very long: end that, "
            "or restart the server",
        )
    return ok("log", f"the database's log has {size / 1024 / 1024:.1f} MiB")


def written_before(settings: Settings, now: datetime) -> Iterator[Finding]:
    """Check this machine's clock against the newest time in the database."""
    try:
        place = of_settings(settings)
        there = isinstance(place, Postgres) or place.exists()
        newest = inspection.newest_instant(place) if there else None
    except (DatabaseUnreadableError, ValueError):
        yield skip("clock", "the database cannot be read, so its newest entry says nothing of the clock")
        return
    if newest is not None and from_micros(newest) > now + TOLERANCE:
        yield fail(
            "clock",
            f"it is {now:%Y-%m-%d %H:%M:%SZ} here, and the database has entries of "
            f"{from_micros(newest):%Y-%m-%d %H:%M:%SZ}: set the clock; certificates and deadlines go by it",
        )
    else:
        yield ok("clock", f"{now:%Y-%m-%d %H:%M:%SZ}, after all that the database has")
