"""The settings of agents, tasks, telemetry, listeners and processes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from controlplane.settings.kinds import DAY, HOUR, MINUTE, SECOND, Duration, Port, Role, between

_TRUST_DOMAIN = r"^[a-z0-9]([a-z0-9._-]{0,253}[a-z0-9])?$"


class SiteSettings(BaseSettings):
    """What an operator may set of all but the factory of packages."""

    model_config = SettingsConfigDict(
        env_prefix="FLEETWRIGHT_", frozen=True, extra="forbid", ser_json_timedelta="iso8601"
    )

    data_dir: Path = Field(
        default=Path("fleetwright-data"), description="Folder of the database, the roots and the identities."
    )
    database_url: SecretStr = Field(
        default=SecretStr(""),
        description="PostgreSQL to use instead of the embedded database, as libpq's URL"
        " (`postgresql://user:password@host/database`).",
    )
    trust_domain: str = Field(
        default="fleetwright.local",
        pattern=_TRUST_DOMAIN,
        description="SPIFFE trust domain of every identity; fixed by `fleetwright init`.",
    )
    hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Names and addresses that go into the server's certificate beside its own,"
        " separated by commas.",
    )

    roles: Annotated[tuple[Role, ...], NoDecode] = Field(
        default=tuple(Role),
        min_length=1,
        description="What this server does: gateway, api, worker, separated by commas. Fewer than all need"
        " PostgreSQL.",
    )
    gateways: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Gateway processes on the port for agents. More than one need PostgreSQL, and get"
        " processes of their own for api and worker too.",
    )
    process_renewal: Duration = between(
        3 * SECOND, timedelta(milliseconds=50), HOUR, "How often a process renews its lease."
    )
    process_lease: Duration = between(
        15 * SECOND,
        timedelta(milliseconds=200),
        3 * HOUR,
        "A process that has not renewed its lease for so long is taken for gone: its sessions are closed.",
    )

    bind_host: str = Field(
        default="0.0.0.0",  # noqa: S104 # agents come from other machines; mutual TLS guards the port
        min_length=1,
        description="Address that the listeners for agents, administrators and enrolment bind.",
    )
    health_bind_host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address that the plaintext health and metrics listener binds.",
    )
    agents_port: Port = Field(default=7443, description="Port for agents; 0 for any free one.")
    admin_port: Port = Field(default=7444, description="Port for administrators; 0 for any free one.")
    enrollment_port: Port = Field(default=7445, description="Port for enrolment; 0 for any free one.")
    health_port: Port = Field(default=7446, description="Port for health and metrics; 0 for any free one.")
    advertised_agent_addresses: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="host:port at which agents reach the server, in order of preference, told to them at"
        " enrolment and separated by commas; empty for the host they enrolled at.",
    )

    max_agents: int = Field(
        default=10_000,
        ge=1,
        le=1_000_000,
        description="Agents that may be connected; decides how many open files are needed.",
    )
    handshake_timeout: Duration = between(
        10 * SECOND, timedelta(milliseconds=10), 2 * MINUTE, "A TLS handshake not done by then is dropped."
    )
    keepalive_interval: Duration = between(
        15 * SECOND,
        SECOND,
        10 * MINUTE,
        "Interval of HTTP/2 pings to agents; it grows where FLEETWRIGHT_MAX_AGENTS is above 10,000.",
    )
    ping_timeout: Duration = between(
        10 * SECOND, SECOND, 2 * MINUTE, "A ping unanswered for so long ends the connection."
    )
    max_connection_age: Duration = between(
        7 * DAY, MINUTE, 365 * DAY, "Backstop: a connection of an agent that is older is closed."
    )

    admission_target: Duration = between(
        5 * SECOND,
        timedelta(milliseconds=10),
        MINUTE,
        "Where a Hello takes longer than this, fewer are let in at once, and others are given a slot.",
    )
    clone_policy: Literal["report", "refuse"] = Field(
        default="report",
        description="An agent that shows a used session nonce is marked as a suspected clone; refuse also"
        " turns it away until it is enrolled again or cleared.",
    )
    agent_certificate_life: Duration = between(
        24 * HOUR, MINUTE, 90 * DAY, "Life of an agent's certificate; renewed at half of it."
    )
    heartbeat_interval: Duration = between(
        10 * SECOND, timedelta(milliseconds=100), HOUR, "Least time between two beats of an agent."
    )
    max_beats_per_second: int = Field(
        default=1_000,
        ge=1,
        le=100_000,
        description="Beats that the fleet may send in a second: with more agents their interval grows.",
    )
    stale_after: Duration = between(
        45 * SECOND, timedelta(milliseconds=200), DAY, "An agent without a beat for so long is STALE."
    )
    offline_after: Duration = between(
        3 * MINUTE, timedelta(milliseconds=300), 7 * DAY, "An agent without a beat for so long is OFFLINE."
    )
    telemetry_interval: Duration = between(
        30 * SECOND, timedelta(milliseconds=100), DAY, "Time between two samplings of telemetry."
    )
    telemetry_retention: Duration = between(30 * DAY, HOUR, 3650 * DAY, "Telemetry that is older is deleted.")
    task_retention: Duration = between(
        90 * DAY,
        # A request_id is remembered for 48 hours, and its task has to be there as long.
        3 * DAY,
        3650 * DAY,
        "Tasks that are final for longer are deleted, with attempts and output; then batches without tasks.",
    )
    ledger_retention: Duration = between(
        7 * DAY, HOUR, 3650 * DAY, "Events of the delivery ledger that are older are deleted."
    )
    token_retention: Duration = between(
        30 * DAY,
        HOUR,
        3650 * DAY,
        "Enrolment tokens that are expired or revoked for longer are deleted.",
    )
    telemetry_budget: int = Field(
        default=5_000,
        ge=1_000,
        le=100_000,
        description="Points that one agent may have sent without an acknowledgement, at most:"
        " fewer while many replay.",
    )
    telemetry_rate: int = Field(
        default=8_000,
        ge=1_000,
        le=10_000_000,
        description="Points that all agents together may send in a second, at most: fewer while the process"
        " is strained.",
    )
    tasks_linger: Duration = between(
        5 * SECOND, timedelta(), 10 * MINUTE, "How long an agent keeps a Tasks stream without work open."
    )
    telemetry_linger: Duration = between(
        2 * SECOND,
        timedelta(),
        10 * MINUTE,
        "How long an agent keeps a Telemetry stream without points open.",
    )
    max_credits: int = Field(
        default=64, ge=1, le=1_024, description="Assignments that one Tasks stream may have outstanding."
    )
    slow_reader_after: Duration = between(
        30 * SECOND,
        timedelta(milliseconds=100),
        HOUR,
        "A peer that has not read what it was sent for so long is closed.",
    )
    lease_time: Duration = between(
        30 * SECOND,
        SECOND,
        HOUR,
        "After which an assignment that was not accepted is queued again, once its session is gone; a stream "
        "on which nothing was heard since is ended.",
    )

    drain_window: Duration = between(
        10 * SECOND, timedelta(), HOUR, "At a stop: agents are sent away over this time."
    )
    drain_grace: Duration = between(
        10 * SECOND, timedelta(), HOUR, "At a stop, after the window: calls in flight may still end."
    )

    presence_sweep: Duration = between(
        5 * SECOND,
        timedelta(milliseconds=50),
        HOUR,
        "How often agents are looked at for STALE and OFFLINE.",
    )
    last_seen_flush: Duration = between(
        5 * SECOND, timedelta(milliseconds=50), HOUR, "How often times of beats are written, many at once."
    )
    tasks_sweep: Duration = between(
        2 * SECOND,
        timedelta(milliseconds=50),
        HOUR,
        "How often leases, run limits and deadlines are looked at.",
    )
    batch_slice: int = Field(
        default=500,
        ge=1,
        le=10_000,
        description="Tasks of a batch that one transaction makes. A batch of up to twice as many is whole"
        " when its call answers; the rest of a larger one is made in slices after it.",
    )
    retention_sweep: Duration = between(
        HOUR,
        timedelta(milliseconds=50),
        DAY,
        "How often old telemetry, tasks, tokens and records are deleted.",
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level that is logged."
    )
    log_format: Literal["auto", "json", "pretty"] = Field(
        default="auto", description="auto is pretty on a terminal and JSON elsewhere."
    )
    failpoints: str = Field(
        default="",
        description="For fault tests: NAME=kill@N, NAME=stop@N or NAME=stall=3s@N, separated by commas; empty"
        " outside of tests.",
    )

    @field_validator("hosts", "advertised_agent_addresses", "roles", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(filter(None, (part.strip() for part in value.split(","))))
        return value

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.heartbeat_interval < self.stale_after < self.offline_after:
            raise ValueError(
                "heartbeat_interval, stale_after and offline_after must grow in this order, so that one late"
                " beat is no loss; they are"
                f" {self.heartbeat_interval}, {self.stale_after}, {self.offline_after}"
            )
        if self.process_lease < 2 * self.process_renewal:
            raise ValueError(
                "process_lease must be at least twice process_renewal, so that one late renewal is no lapse;"
                f" they are {self.process_lease} and {self.process_renewal}"
            )
        ports = [self.agents_port, self.admin_port, self.enrollment_port, self.health_port]
        chosen = [port for port in ports if port]
        if len(set(chosen)) < len(chosen):
            raise ValueError(f"agents, admin, enrolment and health need a port each; they are {ports}")
        return self

    @property
    def alone(self) -> bool:
        """Whether no other process can use the database: it is a file of the data folder."""
        return not self.database_url.get_secret_value()

    def split(self) -> str:
        """Return the words of the setting that asks for several processes; empty where none does."""
        if self.gateways > 1:
            return f"{self.gateways} gateways"
        missing = [role.value for role in Role if role not in self.roles]
        return f"a server without the role {' and '.join(missing)}" if missing else ""
