"""Failpoints of the agent: armed by name and count, and each of them a line of the code."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_sim import failpoints

SOURCES = Path(failpoints.__file__).parent


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    signals: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda process, number: signals.append((process, number)))
    return signals


def test_a_failpoint_fires_at_its_count_and_once(sent: list[tuple[int, int]]) -> None:
    failpoints.arm("agent.after_send=kill@2,agent.after_batch=stop@1")
    failpoints.hit("agent.after_send")
    assert sent == []
    for _ in range(3):
        failpoints.hit("agent.after_send")
    failpoints.hit("agent.after_batch")
    assert sent == [(os.getpid(), signal.SIGKILL), (os.getpid(), signal.SIGSTOP)]


@pytest.mark.parametrize("text", ["nowhere=kill@1", "agent.after_send", "agent.after_send=kill@0", "=kill@1"])
def test_what_is_no_failpoint_is_refused_and_arms_nothing(text: str, sent: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        failpoints.arm(f"agent.after_batch=kill@1,{text}")
    failpoints.hit("agent.after_batch")
    assert sent == []


def test_every_place_is_hit_by_one_line_of_the_code() -> None:
    code = "".join(path.read_text() for path in SOURCES.rglob("*.py"))
    assert sorted(re.findall(r'failpoints\.hit\("([^"]+)"\)', code)) == sorted(
        [*failpoints.PLACES, "agent.after_journal"]  # The docstring of the module shows one.
    )
