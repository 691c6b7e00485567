from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import structlog

from controlplane.observability.logging import configure, redact
from controlplane.observability.loop_lag import measure_loop_lag
from controlplane.observability.metrics import Metrics
from controlplane.redaction import REDACTED


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.mark.parametrize(
    "name",
    [
        "token",
        "join_token",
        "secret",
        "private_key",
        "Password",
        "authorization",
        "body",
        "environment",
        "x-auth-token",
    ],
)
def test_values_with_the_name_of_a_secret_are_blanked(name: str) -> None:
    assert redact(None, "", {"event": "e", name: "hunter2"}) == {"event": "e", name: REDACTED}


def test_secrets_are_found_inside_structures() -> None:
    event = redact(
        None, "", {"event": "e", "request": {"spec": [{"environment": {"A": "b"}, "kind": "script"}]}}
    )
    assert event["request"] == {"spec": [{"environment": REDACTED, "kind": "script"}]}


@pytest.mark.parametrize("name", ["monkey", "tokens_used_up", "keyboard", "agent"])
def test_other_names_are_kept(name: str) -> None:
    assert redact(None, "", {"event": "e", name: 1})[name] == 1


def test_what_lies_too_deep_is_blanked_as_a_whole() -> None:
    nested: Any = {"token": "hunter2"}
    for _ in range(20):
        nested = {"a": nested}
    assert "hunter2" not in repr(redact(None, "", {"event": "e", "x": nested}))


def test_lines_are_json_with_context_where_no_terminal_listens() -> None:
    stream = io.StringIO()
    configure("info", "auto", stream)
    structlog.contextvars.bind_contextvars(request_id="r1", agent="one")
    structlog.get_logger("x").info("agent deleted", count=2)
    structlog.get_logger("x").debug("not of interest")
    [line] = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert line["event"] == "agent deleted"
    assert (line["request_id"], line["agent"], line["count"], line["level"]) == ("r1", "one", 2, "info")
    assert line["timestamp"].endswith("Z")


def test_traceback_stands_in_the_line() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    structlog.get_logger().error("call failed", exc_info=ValueError("what went wrong"))
    assert "what went wrong" in json.loads(stream.getvalue())["exception"]


@pytest.mark.parametrize("log_format", ["json", "pretty"])
def test_secrets_are_blanked_in_texts_and_in_tracebacks(log_format: str) -> None:
    stream = io.StringIO()
    configure("info", log_format, stream)
    address = "postgresql://ada:hunter2@db/fleet"
    try:
        raise RuntimeError(f"cannot reach {address}")
    except RuntimeError as error:
        structlog.get_logger().exception("call failed", tried=[address], error=error)
        logging.getLogger("library").exception("gave up on %s", address)
    assert "cannot reach" in stream.getvalue()
    assert "hunter2" not in stream.getvalue()


def test_warnings_of_libraries_come_in_the_same_form() -> None:
    stream = io.StringIO()
    configure("info", "json", stream)
    logging.getLogger("grpc").warning("cannot %s", "bind")
    logging.getLogger("grpc").info("chatter")
    [line] = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (line["event"], line["level"]) == ("cannot bind", "warning")


def test_people_get_lines() -> None:
    stream = io.StringIO()
    configure("info", "pretty", stream)
    structlog.get_logger().info("listening", port=7443)
    assert "listening" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_two_sets_of_metrics_do_not_share_a_registry() -> None:
    one, another = Metrics(), Metrics()
    one.refused.labels("RATE_LIMITED").inc()
    assert b'fleetwright_refused_total{reason="RATE_LIMITED"} 1.0' in one.expose()
    assert b'fleetwright_refused_total{reason="RATE_LIMITED"}' not in another.expose()


@pytest.mark.parametrize(
    "name",
    [
        "grpc_server_started_total",
        "grpc_server_handled_total",
        "grpc_server_msg_received_total",
        "grpc_server_msg_sent_total",
        "grpc_server_handling_seconds",
        "fleetwright_refused_total",
        "fleetwright_open_streams",
        "fleetwright_agents",
        "fleetwright_group_commit_size",
        "fleetwright_group_commit_seconds",
        "fleetwright_loop_lag_seconds",
        "fleetwright_statement_seconds",
        "fleetwright_statement_rows_total",
        "fleetwright_statement_failures_total",
        "fleetwright_database_connections",
        "fleetwright_database_wait_seconds",
        "fleetwright_tasks",
        "fleetwright_task_oldest_seconds",
        "fleetwright_writer_queue",
        "process_resident_memory_bytes",
    ],
)
def test_metric_is_exposed(name: str) -> None:
    assert f"# TYPE {name} ".encode() in Metrics().expose().replace(b"_total ", b"_total ")


async def test_lag_of_the_loop_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics, measured = Metrics(), asyncio.Event()
    monkeypatch.setattr(metrics.loop_lag_last_seconds, "set", lambda _lag: measured.set())
    task = asyncio.ensure_future(measure_loop_lag(metrics, timedelta()))
    await measured.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert metrics.registry.get_sample_value("fleetwright_loop_lag_seconds_count")
