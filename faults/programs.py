"""The processes of hosts: started, told to leave, killed, stopped and continued by their own ids."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from faults.hosts import HostsConfig
from tests.support.process import environment

_LEAVE_SECONDS = 30.0


class HostsProcess:
    """One process of ``faults.hosts``."""

    def __init__(self, config: HostsConfig, process: asyncio.subprocess.Process, log: Path) -> None:
        self.config = config
        self._process = process
        self._log = log

    @classmethod
    async def start(
        cls, config: HostsConfig, folder: Path, variables: Mapping[str, str] | None = None
    ) -> HostsProcess:
        """Start the agents of ``config``; its files are made in ``folder``."""
        name = f"hosts-{config.agents[0]}-{config.life}"
        path, log = folder / f"{name}.json", folder / f"{name}.log"
        config.write(path)
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "faults.hosts", str(path)),
                env=environment(variables or {}),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=errors,
                # Ctrl-C is for the harness alone, which ends its children in order.
                start_new_session=True,
            )
        return cls(config, process, log)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it."""
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    async def died(self, within: float) -> int:
        """Wait for its end; return its status, negative for a signal."""
        async with asyncio.timeout(within):
            return await self._process.wait()

    async def leave(self) -> int:
        """Let every agent leave in order; return the status of the process. Kills one that does not end."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            return await self.died(_LEAVE_SECONDS)
        except TimeoutError:
            self.kill()
            return await self._process.wait()

    def kill(self) -> None:
        """End it as ``kill -9`` does, also where it is stopped."""
        if self.running:
            self.send(signal.SIGKILL)

    def said(self) -> str:
        """Return the end of what it said to people."""
        return self._log.read_text(errors="replace")[-2000:]
