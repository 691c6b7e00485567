"""Finding out whether a version is there: a file by its digest, a command of the package, dpkg's word."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from fleetwright.manifest import CommandDetect, Detect, DpkgDetect, FileDetect, Manifest, matches

from agent_sim.agent.process import Command, Identity, ProcessEnd, run_process
from agent_sim.agent.rules import OWN_USER
from agent_sim.agent.run_folder import find_account
from agent_sim.released.reasons import COMMAND_NOT_ALLOWED, NOT_DETECTED, InstallError, NotAllowedError

_OUTPUT_BYTES: Final = 64 * 1024
"""Of a command's output; what a pattern asks for stands at its beginning."""
_SHOWN: Final = 200
_GRACE: Final = timedelta(seconds=5)
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

DpkgVersion = Callable[[str], str]
"""Returns the version that dpkg has of a package as installed, or ""."""


@dataclass(frozen=True, slots=True)
class Detector:
    """Looks by a manifest. ``commands_as`` is the user that a package's own command may run as; empty for
    none, so that no such command runs.
    """

    commands_as: str
    dpkg_version: DpkgVersion

    def check(self, manifest: Manifest) -> None:
        """Raise ``NotAllowedError`` where the host's policy lets no command of a package run."""
        if isinstance(manifest.detect, CommandDetect):
            self._identity()

    def look(self, detect: Detect, root: Path) -> None:
        """Raise ``InstallError`` unless what was installed below ``root`` is there. Blocks."""
        if isinstance(detect, FileDetect):
            _look_at_file(root / detect.path, detect.sha256)
        elif isinstance(detect, DpkgDetect):
            found = self.dpkg_version(detect.package)
            if found != detect.version:
                raise _not_detected(
                    f"dpkg has {detect.package} {found or 'not'} installed, not {detect.version}"
                )
        else:
            self._look_with_command(detect, root)

    def _look_with_command(self, detect: CommandDetect, root: Path) -> None:
        program, *arguments = detect.arguments
        command = Command(
            arguments=[str(root / program), *arguments],
            environment={"PATH": _PATH, "LANG": "C.UTF-8", "HOME": "/nonexistent"},
            working=root,
            run_id=f"detect-{secrets.token_hex(8)}",
            identity=self._identity(),
        )
        output = bytearray()
        try:
            # A loop of its own: this runs in a thread, and the agent's loop is not waited for here.
            end = asyncio.run(_run(command, output, timedelta(seconds=detect.timeout_seconds)))
        except OSError as error:
            raise _not_detected(f"{program} cannot be started: {error.strerror}") from None
        if end.timed_out:
            raise _not_detected(f"{program} did not end within {detect.timeout_seconds} s")
        said = bytes(output).decode("utf-8", "replace")
        if end.exit_status != detect.exit_status:
            ended = f"signal {end.signal}" if end.signal else f"exit status {end.exit_status}"
            raise _not_detected(f"{program} ended with {ended}, not {detect.exit_status}: {said[:_SHOWN]!r}")
        if not matches(detect.output, said):
            raise _not_detected(f"{program} printed {said[:_SHOWN]!r}, not {detect.output[:_SHOWN]!r}")

    def _identity(self) -> Identity | None:
        if not self.commands_as:
            raise NotAllowedError(
                COMMAND_NOT_ALLOWED,
                "policy install.commands_as: not set, and the package is found by running its own command",
            )
        if self.commands_as == OWN_USER:
            return None
        account = find_account(self.commands_as)
        if account is None or os.geteuid() != 0:
            raise NotAllowedError(
                COMMAND_NOT_ALLOWED,
                f"policy install.commands_as: {self.commands_as!r}: no such user, or the agent is not root",
            )
        return Identity(account.uid, account.gid, account.groups)


async def _run(command: Command, output: bytearray, limit: timedelta) -> ProcessEnd:
    async def keep(data: bytes) -> None:
        output.extend(data[: _OUTPUT_BYTES - len(output)])

    async def drop(data: bytes) -> None:
        """Only standard output is compared."""

    return await run_process(command, keep, drop, time_limit=limit, grace=_GRACE)


def _look_at_file(path: Path, sha256: str) -> None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise _not_detected(f"{path}: no regular file")
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _not_detected(f"{path}: {error.strerror}") from None
    if found != sha256:
        raise _not_detected(f"{path}: SHA-256 {found}, not {sha256}")


def _not_detected(what: str) -> InstallError:
    return InstallError(NOT_DETECTED, what)
