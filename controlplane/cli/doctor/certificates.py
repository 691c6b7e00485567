"""Keys and certificates of a data folder: whole, of one family, and for how long."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from controlplane.cli.doctor.findings import Finding, fail, ok, warn
from controlplane.settings import Settings
from controlplane.trust.adoption import ADOPTION_FILE, load_adoption
from controlplane.trust.inspection import Inspected, Purpose, inspect
from controlplane.trust.layout import DataFolderError
from controlplane.trust.setup import SERVER_REFRESH

ROOT_SOON = timedelta(days=180)
"""To replace a root touches every machine."""

IDENTITY_SOON = timedelta(days=30)
"""An identity is carried by hand to its owner."""

_NEVER_REFRESHED = SERVER_REFRESH - timedelta(days=1)
# What is left of it then was not made again when it should have been.


def certificates(settings: Settings, now: datetime) -> Iterator[Finding]:
    """Check every certificate of the folder, and the names in the server's."""
    server: Inspected | None = None
    for found in inspect(settings.data_dir):
        yield _judged(settings, found, now)
        if found.purpose is Purpose.SERVER and not found.damage:
            server = server or found
    if server is not None:
        yield from _names(settings, server)


def adoption(settings: Settings, now: datetime) -> Iterator[Finding]:
    """Say whether certificates that the database does not know are let in after a restore."""
    try:
        leave = load_adoption(settings.data_dir)
    except DataFolderError as error:
        yield fail("adoption", str(error))
        return
    if leave is not None and now <= leave.until:
        span = f"{_time(leave.backup_time)} to {_time(leave.restore_time)}"
        yield warn(
            "adoption",
            f"until {_time(leave.until)} certificates of {span} let agents in although the database does not "
            f"know them: to end that, remove {ADOPTION_FILE} and restart the server",
        )


def _judged(settings: Settings, found: Inspected, now: datetime) -> Finding:
    if found.damage or found.begin is None or found.end is None:
        return fail("certificates", found.damage)
    name = str(found.path.relative_to(settings.data_dir))
    if now < found.begin:
        return fail("certificates", f"{name}: begins at {_time(found.begin)}: is the clock right?")
    left = found.end - now
    if left <= timedelta():
        return _ended(found, f"{name}: ended at {_time(found.end)}")
    until = f"{name}: {left.days} days left"
    soon, remedy = _LIMITS[found.purpose]
    return warn("certificates", f"{until}: {remedy}") if left < soon else ok("certificates", until)


_LIMITS = {
    Purpose.ROOT: (ROOT_SOON, "plan a new installation beside this one, whose root agents enrol with"),
    Purpose.SERVER: (_NEVER_REFRESHED, "restart the server, which makes it again"),
    Purpose.IDENTITY: (IDENTITY_SOON, "issue the next one before it ends"),
}


def _ended(found: Inspected, what: str) -> Finding:
    if found.purpose is Purpose.IDENTITY:
        return warn("certificates", f"{what}: have it issued again, and remove its folder")
    if found.purpose is Purpose.SERVER:
        return fail("certificates", f"{what}: restart the server, which makes it again")
    return fail("certificates", f"{what}: nothing that it signed is accepted: make a new installation")


def _names(settings: Settings, server: Inspected) -> Iterator[Finding]:
    addresses = [urlsplit(f"//{address}").hostname or "" for address in settings.advertised_agent_addresses]
    # Not this machine's own name: that of a container is another one at every start.
    wanted = dict.fromkeys([*settings.hosts, *addresses])
    missing = [name for name in wanted if name and name not in server.names]
    if missing:
        yield warn(
            "names",
            f"the server's certificate lacks {', '.join(missing)}: who connects by it is refused; "
            f"`fleetwright add-host {' '.join(missing)}`, and restart the server",
        )
    else:
        yield ok("names", f"the server's certificate is for {', '.join(server.names)}")


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%SZ}"
