from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from controlplane.observability.service_manager import READY, notify


@pytest.fixture
def manager() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(10)
        yield listening


def test_states_come_as_lines_of_one_datagram(manager: socket.socket, tmp_path: Path) -> None:
    manager.bind(str(tmp_path / "notify"))
    notify(str(tmp_path / "notify"), READY, "STATUS=all is well")
    assert manager.recv(1024) == b"READY=1\nSTATUS=all is well"


def test_an_abstract_name_is_reached(manager: socket.socket, tmp_path: Path) -> None:
    manager.bind(f"\0fleetwright{tmp_path}")
    notify(f"@fleetwright{tmp_path}", READY)
    assert manager.recv(1024) == b"READY=1"


@pytest.mark.parametrize("address", [None, ""])
def test_without_a_manager_nothing_is_said(address: str | None) -> None:
    with capture_logs() as logs:
        notify(address, READY)
    assert logs == []


def test_a_manager_that_is_gone_is_logged_and_no_failure(tmp_path: Path) -> None:
    with capture_logs() as logs:
        notify(str(tmp_path / "nobody"), READY)
    (entry,) = logs
    assert entry["log_level"] == "warning"
