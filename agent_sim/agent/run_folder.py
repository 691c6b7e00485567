"""The folder of one script: its body, its working folder, and what a crash left of either.

A script that runs as the agent's own user lives in the agent's work folder,
which no one else can enter. One that runs as another user cannot enter it
either, so its body and working folder lie in the system's folder for temporary
files; the body still belongs to the agent, so that the user cannot change it.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

import structlog

from agent_sim.agent.process import kill_marked

_log = structlog.get_logger(__name__)
_OUTSIDE_PREFIX = "fleetwright-run-"


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this host, as the password database knows it."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where one script lives while it runs; ``run_id`` marks its processes too."""

    run_id: str
    account: Account | None
    inside: Path
    base: Path
    script: Path
    working: Path

    def make(self, body: bytes) -> None:
        """Make the folder with ``body`` where its user can read it. Raises ``OSError``."""
        self.inside.mkdir(mode=0o700)
        account = self.account
        if account is not None:
            self.base.mkdir(mode=0o700)
        handle = os.open(self.script, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(body)
            if account is not None:
                os.fchown(file.fileno(), -1, account.gid)
                os.fchmod(file.fileno(), 0o640)
        self.working.mkdir(mode=0o700)
        if account is not None:
            os.chown(self.working, account.uid, account.gid)
            self.base.chmod(0o711)

    def remove(self) -> None:
        """Remove all of it. What cannot be removed is logged, and tried again at the next start."""
        for folder in dict.fromkeys((self.base, self.inside)):
            _remove(folder)


def find_account(name: str) -> Account | None:
    """Look ``name`` up; None where this host has no such user. May wait for a directory service."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir)


def own_account() -> Account:
    """Return the user that the agent runs as; a uid without a name is called by its number."""
    uid = os.geteuid()
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return Account(str(uid), uid, os.getegid(), tuple(os.getgroups()), "/")
    return Account(entry.pw_name, uid, os.getegid(), tuple(os.getgroups()), entry.pw_dir)


def plan_run_folder(work: Path, account: Account | None) -> RunFolder:
    """Name the folder of a new run as ``account`` (None: the agent's own user), and make nothing yet."""
    run_id = secrets.token_hex(16)
    inside = work / run_id
    base = inside if account is None else Path(tempfile.gettempdir()) / f"{_OUTSIDE_PREFIX}{run_id}"
    return RunFolder(run_id, account, inside, base, base / "script", base / "work")


def clear_leftovers(work: Path) -> int:
    """End and remove what runs of an agent that was killed left behind; return how many there were.

    A folder is removed when its script ends, so one that is still there belongs
    to a run that the agent did not live to end. Its processes carry its name.
    """
    cleared = 0
    for inside in work.iterdir():
        kill_marked(inside.name)
        _remove_outside(Path(tempfile.gettempdir()) / f"{_OUTSIDE_PREFIX}{inside.name}")
        _remove(inside)
        cleared += 1
    return cleared


def _remove_outside(folder: Path) -> None:
    """Remove ``folder`` only where it is ours: anyone may make names in a shared temporary folder."""
    try:
        status = folder.lstat()
    except OSError:
        return
    if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
        _remove(folder)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        _log.warning("a script's folder could not be removed", folder=str(folder))
