"""The settings of a server process: frozen, and the only reader of the environment.

Each field is the environment variable of its name with the prefix ``FLEETWRIGHT_``,
for example ``FLEETWRIGHT_AGENTS_PORT=7443``; what the command line says is passed to
the constructor and wins. Durations are a number of seconds, or one with a unit of ms, s, m,
h or d (``90``, ``250ms``, ``24h``), or ISO 8601 (``PT1M30S``).
"""

from __future__ import annotations

import os
import re
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

_TRUST_DOMAIN = r"^[a-z0-9]([a-z0-9._-]{0,253}[a-z0-9])?$"

_UNITS = {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_NUMBER_AND_UNIT = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)?")


def _duration(value: object) -> object:
    match = _NUMBER_AND_UNIT.fullmatch(value) if isinstance(value, str) else None
    return value if match is None else timedelta(seconds=float(match[1]) * _UNITS[match[2] or ""])


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Port = Annotated[int, Field(ge=0, le=65535)]


def _between(default: timedelta, least: timedelta, most: timedelta, description: str) -> timedelta:
    field: timedelta = Field(default=default, ge=least, le=most, description=description)
    return field


class Role(StrEnum):
    """What a server process does: agents' sessions, what administrators call, what runs on a schedule."""

    GATEWAY = "gateway"
    API = "api"
    WORKER = "worker"


_SECOND = timedelta(seconds=1)
_MINUTE = timedelta(minutes=1)
_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)


class Settings(BaseSettings):
    """What an operator may set. Raises ``pydantic.ValidationError``; ``explain`` puts that into words."""

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
    process_renewal: Duration = _between(
        3 * _SECOND, timedelta(milliseconds=50), _HOUR, "How often a process renews its lease."
    )
    process_lease: Duration = _between(
        15 * _SECOND,
        timedelta(milliseconds=200),
        3 * _HOUR,
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
    handshake_timeout: Duration = _between(
        10 * _SECOND, timedelta(milliseconds=10), 2 * _MINUTE, "A TLS handshake not done by then is dropped."
    )
    keepalive_interval: Duration = _between(
        15 * _SECOND,
        _SECOND,
        10 * _MINUTE,
        "Interval of HTTP/2 pings to agents; it grows where FLEETWRIGHT_MAX_AGENTS is above 10,000.",
    )
    ping_timeout: Duration = _between(
        10 * _SECOND, _SECOND, 2 * _MINUTE, "A ping unanswered for so long ends the connection."
    )
    max_connection_age: Duration = _between(
        7 * _DAY, _MINUTE, 365 * _DAY, "Backstop: a connection of an agent that is older is closed."
    )

    admission_target: Duration = _between(
        5 * _SECOND,
        timedelta(milliseconds=10),
        _MINUTE,
        "Where a Hello takes longer than this, fewer are let in at once, and others are given a slot.",
    )
    clone_policy: Literal["report", "refuse"] = Field(
        default="report",
        description="An agent that shows a used session nonce is marked as a suspected clone; refuse also"
        " turns it away until it is enrolled again or cleared.",
    )
    agent_certificate_life: Duration = _between(
        24 * _HOUR, _MINUTE, 90 * _DAY, "Life of an agent's certificate; renewed at half of it."
    )
    heartbeat_interval: Duration = _between(
        10 * _SECOND, timedelta(milliseconds=100), _HOUR, "Least time between two beats of an agent."
    )
    max_beats_per_second: int = Field(
        default=1_000,
        ge=1,
        le=100_000,
        description="Beats that the fleet may send in a second: with more agents their interval grows.",
    )
    stale_after: Duration = _between(
        45 * _SECOND, timedelta(milliseconds=200), _DAY, "An agent without a beat for so long is STALE."
    )
    offline_after: Duration = _between(
        3 * _MINUTE, timedelta(milliseconds=300), 7 * _DAY, "An agent without a beat for so long is OFFLINE."
    )
    telemetry_interval: Duration = _between(
        30 * _SECOND, timedelta(milliseconds=100), _DAY, "Time between two samplings of telemetry."
    )
    telemetry_retention: Duration = _between(
        30 * _DAY, _HOUR, 3650 * _DAY, "Telemetry that is older is deleted."
    )
    task_retention: Duration = _between(
        90 * _DAY,
        # A request_id is remembered for 48 hours, and its task has to be there as long.
        3 * _DAY,
        3650 * _DAY,
        "Tasks that are final for longer are deleted, with attempts and output; then batches without tasks.",
    )
    ledger_retention: Duration = _between(
        7 * _DAY, _HOUR, 3650 * _DAY, "Events of the delivery ledger that are older are deleted."
    )
    token_retention: Duration = _between(
        30 * _DAY,
        _HOUR,
        3650 * _DAY,
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
    tasks_linger: Duration = _between(
        5 * _SECOND, timedelta(), 10 * _MINUTE, "How long an agent keeps a Tasks stream without work open."
    )
    telemetry_linger: Duration = _between(
        2 * _SECOND,
        timedelta(),
        10 * _MINUTE,
        "How long an agent keeps a Telemetry stream without points open.",
    )
    max_credits: int = Field(
        default=64, ge=1, le=1_024, description="Assignments that one Tasks stream may have outstanding."
    )
    slow_reader_after: Duration = _between(
        30 * _SECOND,
        timedelta(milliseconds=100),
        _HOUR,
        "A peer that has not read what it was sent for so long is closed.",
    )
    lease_time: Duration = _between(
        30 * _SECOND,
        _SECOND,
        _HOUR,
        "After which an assignment that was not accepted is queued again, once its session is gone.",
    )

    drain_window: Duration = _between(
        10 * _SECOND, timedelta(), _HOUR, "At a stop: agents are sent away over this time."
    )
    drain_grace: Duration = _between(
        10 * _SECOND, timedelta(), _HOUR, "At a stop, after the window: calls in flight may still end."
    )

    presence_sweep: Duration = _between(
        5 * _SECOND,
        timedelta(milliseconds=50),
        _HOUR,
        "How often agents are looked at for STALE and OFFLINE.",
    )
    last_seen_flush: Duration = _between(
        5 * _SECOND, timedelta(milliseconds=50), _HOUR, "How often times of beats are written, many at once."
    )
    tasks_sweep: Duration = _between(
        2 * _SECOND,
        timedelta(milliseconds=50),
        _HOUR,
        "How often leases, run limits and deadlines are looked at.",
    )
    batch_slice: int = Field(
        default=500,
        ge=1,
        le=10_000,
        description="Tasks of a batch that one transaction makes. A batch of up to twice as many is whole"
        " when its call answers; the rest of a larger one is made in slices after it.",
    )
    retention_sweep: Duration = _between(
        _HOUR,
        timedelta(milliseconds=50),
        _DAY,
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


class ClientSettings(BaseSettings):
    """What the ``fleetwright`` command, as a client, takes from the environment where no option says it."""

    model_config = SettingsConfigDict(env_prefix="FLEETWRIGHT_", frozen=True, env_ignore_empty=True)

    server: str | None = Field(default=None, description="HOST:PORT of the server's port for administrators.")
    identity: Path | None = Field(
        default=None, description="Folder with key.pem, cert.pem and ca.pem of who calls."
    )
    context: str | None = Field(default=None, description="Name of the context to use.")
    config: Path | None = Field(
        default=None,
        description="File of the contexts; without it, fleetwright/config.toml in XDG_CONFIG_HOME or"
        " ~/.config.",
    )
    data_dir: Path = Field(
        default=Path("fleetwright-data"),
        description="Data folder of a server on this machine; where nothing else is said, its first"
        " administrator calls.",
    )
    xdg_config_home: Path | None = Field(default=None, validation_alias="XDG_CONFIG_HOME")

    @property
    def config_file(self) -> Path:
        """The file of the contexts; it need not exist."""
        if self.config is not None:
            return self.config
        try:
            home = Path.home()
        except RuntimeError:  # a user without a home, as in many containers
            home = Path()
        return (self.xdg_config_home or home / ".config") / "fleetwright" / "config.toml"


def silence_grpc(*, keep_errors: bool) -> None:
    """Keep gRPC's own lines off standard error, unless the environment says how much of them is wanted.

    Works only before ``grpc`` is imported.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR" if keep_errors else "NONE")


def notify_socket() -> str | None:
    """Return where a service manager that started this process is to be told of its state: sd_notify(3)."""
    return os.environ.get("NOTIFY_SOCKET")


def unknown_variables() -> list[str]:
    """Return environment variables that look like settings and are none: most often a misspelt name."""
    fields = Settings.model_fields | ClientSettings.model_fields
    known = {f"FLEETWRIGHT_{name.upper()}" for name in fields}
    return sorted(name for name in os.environ if name.startswith("FLEETWRIGHT_") and name not in known)


def explain(error: ValidationError) -> str:
    """Return what is wrong with the settings, a line each, by the name of the variable."""
    lines = []
    for problem in error.errors(include_url=False):
        field = str(problem["loc"][0]) if problem["loc"] else ""
        name = f"FLEETWRIGHT_{field.upper()}" if field else "settings"
        secret = field in Settings.model_fields and Settings.model_fields[field].annotation is SecretStr
        given = f" (it is {problem['input']!r})" if field and not secret else ""
        lines.append(f"{name}: {problem['msg']}{given}")
    return "\n".join(lines)
