"""dpkg, asked and told. Synchronous: whoever calls is in a thread of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from agent_sim.released.reasons import DPKG_FAILED, TYPE_NOT_ALLOWED, InstallError, NotAllowedError

_ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    # Nobody is there to answer a package's questions.
    "DEBIAN_FRONTEND": "noninteractive",
}
# A file that the host's owner has changed stays as it is.
_KEEP_CHANGES: Final = ("--force-confdef", "--force-confold")
_SHOWN: Final = 600
"""Characters of dpkg's words that are reported, the last ones."""


@dataclass(frozen=True, slots=True)
class Dpkg:
    """The package manager of the system whose files are below ``root``."""

    allowed: bool
    root: Path = Path("/")
    time_limit: timedelta = timedelta(minutes=30)
    """Of one call: maintainer scripts may take their time."""
    lock_wait: timedelta = timedelta(minutes=3)
    """How long another user of dpkg (apt, an update) is waited for."""
    lock_pause: float = 2.0

    @property
    def _root(self) -> Sequence[str]:
        return () if self.root == Path("/") else (f"--root={self.root}",)

    def check(self) -> None:
        """Raise ``NotAllowedError`` where the policy, or the host, does not let packages of dpkg in."""
        if not self.allowed:
            raise NotAllowedError(
                TYPE_NOT_ALLOWED, "policy install.dpkg: not true, so no .deb is installed on this host"
            )
        if os.geteuid() != 0:
            raise NotAllowedError(TYPE_NOT_ALLOWED, "a .deb is installed by root, and this agent is not root")
        if shutil.which("dpkg", path=_ENVIRONMENT["PATH"]) is None:
            raise NotAllowedError(TYPE_NOT_ALLOWED, "this host has no dpkg, so no .deb is installed on it")

    def version(self, package: str) -> str:
        """Return the version of a package that is installed and configured; empty for none.

        Raises ``InstallError`` where dpkg cannot say.
        """
        query = (
            "dpkg-query",
            *self._root,
            "--show",
            "--showformat=${db:Status-Status} ${Version}\\n",
            package,
        )
        answer = self._run(query)
        if answer.returncode > 1:  # 1: it knows no such package.
            raise _failed(answer)
        for line in answer.stdout.splitlines():
            status, _, version = line.partition(" ")
            if status == "installed":
                return version.strip()
        return ""

    def install(self, package: Path) -> None:
        """Install a package file. Raises ``InstallError`` with dpkg's own words."""
        self._change("--install", str(package))

    def remove(self, package: str) -> None:
        """Remove a package; its configuration files stay. Raises ``InstallError``."""
        # Also one whose installation was cut short, which dpkg would rather see installed again.
        self._change("--force-remove-reinstreq", "--remove", package)

    def _change(self, *arguments: str) -> None:
        command = ("dpkg", *self._root, *_KEEP_CHANGES, *arguments)
        end = time.monotonic() + self.lock_wait.total_seconds()
        while True:
            done = self._run(command)
            if done.returncode == 0:
                return
            if "lock" not in done.stderr or time.monotonic() > end:
                raise _failed(done)
            time.sleep(self.lock_pause)

    def _run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                env=_ENVIRONMENT,
                cwd="/",
                umask=0o022,
                timeout=self.time_limit.total_seconds(),
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise InstallError(
                DPKG_FAILED, f"{command[0]} did not end within {self.time_limit}: look at it on the host"
            ) from None
        except OSError as error:
            raise InstallError(DPKG_FAILED, f"{command[0]} cannot be started: {error.strerror}") from None


def _failed(done: subprocess.CompletedProcess[str]) -> InstallError:
    words = " ".join((done.stderr or done.stdout).split())[-_SHOWN:]
    return InstallError(DPKG_FAILED, f"{done.args[0]} ended with exit status {done.returncode}: {words}")
