"""The metrics of one process, in a registry that is passed around.

The gRPC names are those of grpc-ecosystem/go-grpc-prometheus, so that its
dashboards work. Handling seconds are taken of unary calls alone: the age of a
stream that lives for days says nothing, so streams have a gauge instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from controlplane.observability.statements import StatementMetrics

_CALL = ("grpc_type", "grpc_service", "grpc_method")
_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SLOW = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def _registry() -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


@dataclass(frozen=True)
class Metrics:
    """Every metric of the server. Labels name kinds, never an agent: a fleet would be its own outage."""

    registry: CollectorRegistry = field(default_factory=_registry)
    calls_started: Counter = field(init=False)
    calls_handled: Counter = field(init=False)
    messages_received: Counter = field(init=False)
    messages_sent: Counter = field(init=False)
    handling_seconds: Histogram = field(init=False)
    refused: Counter = field(init=False)
    """By reason of the contract's ErrorReason: at the door, by a handler, or inside a stream."""
    results: Counter = field(init=False)
    """Results of attempts that agents reported, by what became of them: the contract's ResultDisposition."""
    lost_observations: Counter = field(init=False)
    """Observations of deliveries that are missing in the ledger because there were too many to write."""
    tls_handshakes: Counter = field(init=False)
    """Handshakes begun, by listener; far above the calls, it tells of garbage and of bad certificates."""
    health_connections: Counter = field(init=False)
    """Connections of the health listener, by what they spoke: http1, h2c, garbage, silent, overload."""
    admissions: Counter = field(init=False)
    """Hellos that came to the admission gate, by its verdict: admitted, at_slot, replaces, refused."""
    admission_backlog: Gauge = field(init=False)
    """Agents that were given a slot and have not come yet."""
    admission_gate: Gauge = field(init=False)
    """Hellos that may be under way at once."""
    admission_rate: Gauge = field(init=False)
    """Admissions a second that slots are spaced by."""
    replay_rate: Gauge = field(init=False)
    """Points of telemetry a second that are taken in at the most."""
    open_streams: Gauge = field(init=False)
    """Streams that are open, by method name."""
    agents: Gauge = field(init=False)
    """Agents known, by presence."""
    tasks: Gauge = field(init=False)
    """Tasks that are not final, by state."""
    task_oldest_seconds: Gauge = field(init=False)
    """Age of the oldest task, since its creation, by state; 0 where there is none."""
    pipelines: Gauge = field(init=False)
    """Pipelines that have not ended, by state."""
    stage_seconds: Histogram = field(init=False)
    """How long stages of pipelines took, by stage and outcome: succeeded, failed or cut_off."""
    upload_bytes: Counter = field(init=False)
    """Bytes of artefacts that were taken in."""
    download_bytes: Counter = field(init=False)
    """Bytes of packages that were sent, by who asked: agent or administrator."""
    advisory_age_seconds: Gauge = field(init=False)
    """Age of what is known of vulnerabilities, by ecosystem."""
    writer_queue: Gauge = field(init=False)
    """Operations that wait for a group commit."""
    group_commit_size: Histogram = field(init=False)
    group_commit_seconds: Histogram = field(init=False)
    statements: StatementMetrics = field(init=False)
    """Time, rows and failures of statements, by the function that asked and the engine: write or read."""
    database_connections: Gauge = field(init=False)
    """Connections that are open, by engine and state: idle or used."""
    database_wait_seconds: Histogram = field(init=False)
    """How long transactions waited for a connection, by engine."""
    schedule_failures: Counter = field(init=False)
    """Runs of periodic work that failed, by its name."""
    loop_lag_seconds: Histogram = field(init=False)
    loop_lag_last_seconds: Gauge = field(init=False)

    def __post_init__(self) -> None:
        """Make the metrics in the registry."""
        made = (
            _calls(self.registry)
            | _state(self.registry)
            | _packaging(self.registry)
            | _storage(self.registry)
            | _process(self.registry)
        )
        for name, metric in made.items():
            object.__setattr__(self, name, metric)

    def expose(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        return generate_latest(self.registry)


def _calls(registry: CollectorRegistry) -> dict[str, Counter | Gauge | Histogram]:
    return {
        "calls_started": Counter("grpc_server_started_total", "Calls begun.", _CALL, registry=registry),
        "calls_handled": Counter(
            "grpc_server_handled_total",
            "Calls ended, by status code.",
            (*_CALL, "grpc_code"),
            registry=registry,
        ),
        "messages_received": Counter(
            "grpc_server_msg_received_total", "Messages received.", _CALL, registry=registry
        ),
        "messages_sent": Counter("grpc_server_msg_sent_total", "Messages sent.", _CALL, registry=registry),
        "handling_seconds": Histogram(
            "grpc_server_handling_seconds", "Time of unary calls.", _CALL, buckets=_FAST, registry=registry
        ),
        "refused": Counter(
            "fleetwright_refused_total", "Refusals, by reason.", ("reason",), registry=registry
        ),
        "results": Counter(
            "fleetwright_results_total", "Results reported.", ("disposition",), registry=registry
        ),
        "lost_observations": Counter(
            "fleetwright_ledger_lost_observations_total",
            "Observations of deliveries that the ledger dropped.",
            registry=registry,
        ),
        "tls_handshakes": Counter(
            "fleetwright_tls_handshakes_total", "TLS handshakes begun.", ("listener",), registry=registry
        ),
        "health_connections": Counter(
            "fleetwright_health_connections_total",
            "Connections of the health listener.",
            ("protocol",),
            registry=registry,
        ),
        "admissions": Counter(
            "fleetwright_admissions_total", "Hellos, by verdict of the gate.", ("verdict",), registry=registry
        ),
        "admission_backlog": Gauge(
            "fleetwright_admission_backlog", "Agents that have a slot and have not come.", registry=registry
        ),
        "admission_gate": Gauge(
            "fleetwright_admission_gate", "Hellos that may be under way at once.", registry=registry
        ),
        "admission_rate": Gauge(
            "fleetwright_admission_rate", "Admissions a second by which slots are spaced.", registry=registry
        ),
        "replay_rate": Gauge(
            "fleetwright_replay_rate", "Points a second that are taken in at the most.", registry=registry
        ),
        "open_streams": Gauge(
            "fleetwright_open_streams", "Streams that are open.", ("stream",), registry=registry
        ),
    }


def _state(registry: CollectorRegistry) -> dict[str, Counter | Gauge | Histogram]:
    return {
        "agents": Gauge("fleetwright_agents", "Agents known.", ("presence",), registry=registry),
        "tasks": Gauge("fleetwright_tasks", "Tasks that are not final.", ("state",), registry=registry),
        "task_oldest_seconds": Gauge(
            "fleetwright_task_oldest_seconds",
            "Age of the oldest task that is not final.",
            ("state",),
            registry=registry,
        ),
    }


def _packaging(registry: CollectorRegistry) -> dict[str, Counter | Gauge | Histogram]:
    return {
        "pipelines": Gauge(
            "fleetwright_pipelines", "Pipelines that have not ended.", ("state",), registry=registry
        ),
        "stage_seconds": Histogram(
            "fleetwright_stage_seconds",
            "Time of stages of pipelines.",
            ("stage", "outcome"),
            buckets=_SLOW,
            registry=registry,
        ),
        "upload_bytes": Counter(
            "fleetwright_upload_bytes_total", "Bytes of artefacts taken in.", registry=registry
        ),
        "download_bytes": Counter(
            "fleetwright_download_bytes_total",
            "Bytes of packages sent.",
            ("caller",),
            registry=registry,
        ),
        "advisory_age_seconds": Gauge(
            "fleetwright_advisory_age_seconds",
            "Age of what is known of vulnerabilities.",
            ("ecosystem",),
            registry=registry,
        ),
    }


def _storage(registry: CollectorRegistry) -> dict[str, Counter | Gauge | Histogram | StatementMetrics]:
    return {
        "statements": StatementMetrics(registry),
        "writer_queue": Gauge(
            "fleetwright_writer_queue", "Operations that wait for a group commit.", registry=registry
        ),
        "group_commit_size": Histogram(
            "fleetwright_group_commit_size", "Operations of a commit.", buckets=_SIZES, registry=registry
        ),
        "group_commit_seconds": Histogram(
            "fleetwright_group_commit_seconds", "Time of a commit.", buckets=_FAST, registry=registry
        ),
        "database_connections": Gauge(
            "fleetwright_database_connections",
            "Connections to the database.",
            ("engine", "state"),
            registry=registry,
        ),
        "database_wait_seconds": Histogram(
            "fleetwright_database_wait_seconds",
            "Wait for a connection to the database.",
            ("engine",),
            buckets=_FAST,
            registry=registry,
        ),
    }


def _process(registry: CollectorRegistry) -> dict[str, Counter | Gauge | Histogram]:
    return {
        "schedule_failures": Counter(
            "fleetwright_schedule_failures_total",
            "Runs of periodic work that failed.",
            ("schedule",),
            registry=registry,
        ),
        "loop_lag_seconds": Histogram(
            "fleetwright_loop_lag_seconds",
            "How late the loop runs what is due.",
            buckets=_FAST,
            registry=registry,
        ),
        "loop_lag_last_seconds": Gauge(
            "fleetwright_loop_lag_last_seconds", "The last lag measured.", registry=registry
        ),
    }
