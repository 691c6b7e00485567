"""The agent's log names what runs, and never what is in it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from fleetwright.v1 import agent_service_pb2, work_pb2

from agent_sim.agent.log_format import LogObserver, configure_logging


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    before = logging.getLogger().handlers[:]
    level = logging.getLogger().level
    configure_logging("info", stream)
    yield stream
    structlog.reset_defaults()
    logging.getLogger().handlers[:] = before
    logging.getLogger().setLevel(level)


def test_each_line_is_json_where_no_person_reads(stream: io.StringIO) -> None:
    structlog.get_logger("a").info("one", count=1)
    logging.getLogger("b").warning("two %d", 2)
    structlog.get_logger("a").debug("not told")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["event"], line["level"], line["logger"]) for line in lines] == [
        ("one", "info", "a"),
        ("two 2", "warning", "b"),
    ]
    assert all(line["timestamp"].endswith("Z") for line in lines)


def test_an_assignment_is_logged_without_what_it_holds(stream: io.StringIO) -> None:
    script = work_pb2.ScriptSpec(
        interpreter="sh", body="body-secret", arguments=["argument-secret"], environment={"A": "value-secret"}
    )
    LogObserver().assignment_received(
        agent_service_pb2.Assignment(attempt_id="a1", task="tasks/t1", spec=work_pb2.TaskSpec(script=script))
    )
    assert "a1" in stream.getvalue()
    assert "secret" not in stream.getvalue()


def test_a_traceback_on_a_terminal_shows_no_local_variables() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def run(environment: dict[str, str]) -> None:
        raise RuntimeError(f"{len(environment)} variables")

    terminal = Terminal()
    before, level = logging.getLogger().handlers[:], logging.getLogger().level
    configure_logging("info", terminal)
    try:
        run({"A": "-".join(("value", "secret"))})
    except RuntimeError:
        logging.getLogger("x").exception("the host failed")
        structlog.get_logger("y").exception("the host failed")
    finally:
        structlog.reset_defaults()
        logging.getLogger().handlers[:] = before
        logging.getLogger().setLevel(level)
    assert terminal.getvalue().count("1 variables") == 2
    assert "value-secret" not in terminal.getvalue()
