"""Following a watch on the command line, over a server that goes and comes back."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import fleetwright.watching
import grpc
import pytest
from fleetwright.v1.agent_registry_service_pb2 import WatchAgentsResponse

from controlplane.cli.watching import following


class Lost(grpc.RpcError):
    """What a watch ends with when its server goes."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "gone"

    def trailing_metadata(self) -> Any:
        return ()


class Channel:
    """A connection whose state the test decides."""

    def __init__(self) -> None:
        self.told: list[Callable[[grpc.ChannelConnectivity], None]] = []

    def subscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        self.told.append(callback)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        self.told.remove(callback)

    def becomes(self, state: grpc.ChannelConnectivity) -> None:
        for callback in self.told:
            callback(state)


def test_a_server_that_is_back_is_not_waited_for_any_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    # A wait that was not cut short would outlast every test.
    monkeypatch.setattr(fleetwright.watching, "FIRST_WAIT", timedelta(days=1))
    monkeypatch.setattr(fleetwright.watching, "LONGEST_WAIT", timedelta(days=1))
    monkeypatch.setattr(random, "random", lambda: 1.0)
    channel, notes, opened = Channel(), list[str](), list[str]()

    def start(token: str) -> Iterator[WatchAgentsResponse]:
        opened.append(token)
        yield WatchAgentsResponse(resume_token=f"t{len(opened)}")
        channel.becomes(grpc.ChannelConnectivity.TRANSIENT_FAILURE)
        raise Lost

    def note(text: str) -> None:
        notes.append(text)
        if "connection lost" in text:
            channel.becomes(grpc.ChannelConnectivity.READY)

    client: Any = SimpleNamespace(channel=channel)
    changes = following(client, start, note)
    assert [next(changes).resume_token for _ in range(2)] == ["t1", "t2"]
    assert opened == ["", "t1"]
    assert notes[1:] == ["connected again"]
    changes.close()  # type: ignore[attr-defined]
    assert channel.told == []
