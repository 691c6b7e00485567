"""What holds for every test."""

from __future__ import annotations

import faulthandler
import os
import signal
from collections.abc import Generator
from typing import Any, TextIO

import pytest

# A shell without job control starts what it puts in the background with SIGINT ignored, and every child
# inherits that: programs under test could then not be ended by Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The time limit of a test is an exception in the main thread, which a thread that holds a lock or a task
# that catches everything can keep from ending it. This much later the process ends, and says where it hangs.
GRACE_SECONDS = 60
# As long may a worker wait to be given its next test.
IDLE_SECONDS = 300
_STDERR = pytest.StashKey[TextIO]()


# Set to 1 to run what is marked as long, too.
_LONG = "FLEETWRIGHT_TEST_LONG"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what is one of several alike, unless all are asked for."""
    if os.environ.get(_LONG) == "1":
        return
    left_out = pytest.mark.skip(reason=f"one of several alike: make test-long, or {_LONG}=1, runs all")
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(left_out)


def pytest_configure(config: pytest.Config) -> None:
    """Keep the standard error of before the capture, to write to when all hangs."""
    config.stash[_STDERR] = os.fdopen(os.dup(2), "w")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Let nothing that was left over hold up the end."""
    faulthandler.dump_traceback_later(GRACE_SECONDS, exit=True, file=config.stash[_STDERR])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """End the process where a test outlives its limit; it counts as failed then."""
    limit = item.get_closest_marker("timeout")
    seconds = float(limit.args[0] if limit else item.config.getini("timeout"))
    faulthandler.dump_traceback_later(seconds + GRACE_SECONDS, exit=True, file=item.config.stash[_STDERR])
    try:
        return (yield)
    finally:
        faulthandler.dump_traceback_later(IDLE_SECONDS, exit=True, file=item.config.stash[_STDERR])
