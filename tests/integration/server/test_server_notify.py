"""What a service manager hears of the server."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from tests.support.process import settings_of, spawn


async def test_systemd_hears_that_the_server_serves_and_that_it_drains(folder: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        variables = {**settings_of(folder), "NOTIFY_SOCKET": str(tmp_path / "notify")}
        server = await spawn("fleetwright", "serve", variables=variables, devnull=True)
        try:
            assert await asyncio.to_thread(manager.recv, 1024) == b"READY=1\nSTATUS=serving"
            server.terminate()
            assert await asyncio.to_thread(manager.recv, 1024) == b"STOPPING=1\nSTATUS=draining"
            assert await server.wait() == 0
        finally:
            if server.returncode is None:
                server.kill()
                await server.wait()


async def test_a_server_that_does_not_come_up_does_not_say_so(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        variables = {**settings_of(tmp_path / "nowhere"), "NOTIFY_SOCKET": str(tmp_path / "notify")}
        server = await spawn("fleetwright", "serve", variables=variables)
        await server.communicate()
        assert server.returncode == 1
        with pytest.raises(BlockingIOError):
            manager.recv(1024)
