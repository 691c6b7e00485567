"""The method table: every method that the server speaks, and who may call it how often.

A method that does not stand here is refused at run time and fails a test. The
listener is part of the row because the authentication context of a call does not
say by which port it came in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from types import MappingProxyType

from controlplane.callers import IdentityKind


class Listener(Enum):
    """A port of the server; the value is its name in settings, logs and metrics."""

    AGENTS = "agents"
    ADMIN = "admin"
    ENROLLMENT = "enrollment"
    HEALTH = "health"


class Arity(Enum):
    """How many messages go each way; the value is the label ``grpc_type``."""

    UNARY = "unary"
    CLIENT_STREAM = "client_stream"
    SERVER_STREAM = "server_stream"
    BIDI_STREAM = "bidi_stream"


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A token bucket for each caller and method: ``per_second`` calls, ``burst`` at once."""

    per_second: float
    burst: int


@dataclass(frozen=True, slots=True)
class Method:
    """One row of the table.

    ``deadline`` is the server's own, None for streams. ``resource`` is where an audit line
    finds the name of what the call is about: a dotted path that begins with ``request`` or
    ``response``.
    """

    full_name: str
    arity: Arity
    listeners: frozenset[Listener]
    callers: frozenset[IdentityKind]
    deadline: timedelta | None
    rate: RateLimit
    audited: bool = False
    resource: str = ""

    @property
    def service(self) -> str:
        """The service's full name, for example ``fleetwright.v1.TaskService``."""
        return self.full_name.split("/")[1]

    @property
    def name(self) -> str:
        """The method's own name, for example ``CreateTask``."""
        return self.full_name.split("/")[2]


_READ = timedelta(seconds=10)
_WRITE = timedelta(seconds=30)
# One statement for a whole fleet.
_BULK = timedelta(seconds=120)

_AGENT = frozenset({IdentityKind.AGENT})
_OPERATOR = frozenset({IdentityKind.OPERATOR})
_ADMINISTRATOR = frozenset({IdentityKind.OPERATOR, IdentityKind.INTEGRATOR})
_ANONYMOUS = frozenset({IdentityKind.ANONYMOUS})

# An agent opens Heartbeat once and comes back with backoff; the burst is for a flapping link.
_AGENT_SESSION = RateLimit(1, 30)
# Tasks and Telemetry are opened for each burst of work.
_AGENT_STREAM = RateLimit(10, 60)
# A refresh of the metadata asks for a handful of files, and for each root since the last time.
_AGENT_METADATA = RateLimit(5, 100)
# A download that is cut off goes on in another call; how fast its bytes go is the room's own limit.
_AGENT_DOWNLOAD = RateLimit(1, 20)
# Certificates are renewed at half of a life that is seldom under a minute.
_AGENT_RENEWAL = RateLimit(0.2, 10)
# A fuse against a runaway script, far above what one server commits in a second.
_ADMIN_CALL = RateLimit(5_000, 10_000)
_ADMIN_STREAM = RateLimit(20, 200)
# A whole site may enrol from behind one address; the token's secret is 256 bits, so this is a fuse too.
_ENROLLMENT = RateLimit(200, 2_000)
_PROBE = RateLimit(50, 200)


def _agent(name: str, arity: Arity, rate: RateLimit, *, audited: bool = False) -> Method:
    return Method(
        full_name=f"/fleetwright.v1.AgentService/{name}",
        arity=arity,
        listeners=frozenset({Listener.AGENTS}),
        callers=_AGENT,
        deadline=_WRITE if arity is Arity.UNARY else None,
        rate=rate,
        audited=audited,
    )


def _sending(full_name: str, resource: str = "") -> Method:
    return Method(
        full_name,
        Arity.CLIENT_STREAM,
        _ADMIN,
        _ADMINISTRATOR,
        None,
        _ADMIN_STREAM,
        audited=True,
        resource=resource,
    )


def _reading(service: str, *names: str) -> list[Method]:
    return [
        Method(f"/{service}/{name}", Arity.UNARY, _ADMIN, _ADMINISTRATOR, _READ, _ADMIN_CALL)
        for name in names
    ]


def _watching(service: str, *names: str) -> list[Method]:
    return [
        Method(f"/{service}/{name}", Arity.SERVER_STREAM, _ADMIN, _ADMINISTRATOR, None, _ADMIN_STREAM)
        for name in names
    ]


def _changing(
    full_name: str,
    resource: str,
    *,
    callers: frozenset[IdentityKind] = _OPERATOR,
    deadline: timedelta = _WRITE,
) -> Method:
    return Method(
        full_name, Arity.UNARY, _ADMIN, callers, deadline, _ADMIN_CALL, audited=True, resource=resource
    )


_ADMIN = frozenset({Listener.ADMIN})
_PROBED = frozenset({Listener.ADMIN, Listener.HEALTH})
_PROBERS = _ADMINISTRATOR | _ANONYMOUS
_REGISTRY = "fleetwright.v1.AgentRegistryService"
_TASKS = "fleetwright.v1.TaskService"
_DELIVERY = "fleetwright.v1.DeliveryService"
_PACKAGING = "fleetwright.v1.PackagingService"
_ADVISORIES = "fleetwright.v1.AdvisoryService"
_TRUST = "fleetwright.v1.TrustService"
_TELEMETRY = "fleetwright.v1.TelemetryService"
_TOKENS = "fleetwright.v1.EnrollmentTokenService"
_IDENTITIES = "fleetwright.v1.IdentityService"
_SERVER = "fleetwright.v1.ServerService"
_CHANNELZ = "grpc.channelz.v1.Channelz"

_ROWS = [
    _agent("Heartbeat", Arity.BIDI_STREAM, _AGENT_SESSION),
    _agent("Tasks", Arity.BIDI_STREAM, _AGENT_STREAM),
    _agent("Telemetry", Arity.BIDI_STREAM, _AGENT_STREAM),
    _agent("RenewCertificate", Arity.UNARY, _AGENT_RENEWAL, audited=True),
    _agent("FetchMetadata", Arity.UNARY, _AGENT_METADATA),
    _agent("DownloadArtefact", Arity.SERVER_STREAM, _AGENT_DOWNLOAD),
    Method(
        "/fleetwright.v1.EnrollmentService/Enroll",
        Arity.UNARY,
        frozenset({Listener.ENROLLMENT}),
        _ANONYMOUS,
        _WRITE,
        _ENROLLMENT,
        audited=True,
        resource="request.agent_id",
    ),
    *_reading(_REGISTRY, "GetAgent", "ListAgents"),
    *_watching(_REGISTRY, "WatchAgents"),
    _changing(f"/{_REGISTRY}/UpdateAgent", "request.agent.name"),
    _changing(f"/{_REGISTRY}/DeleteAgent", "request.name"),
    *_reading(_TASKS, "GetTask", "GetTaskBatch", "ListTasks"),
    *_watching(_TASKS, "WatchTasks", "ReadTaskOutput"),
    _changing(f"/{_TASKS}/CreateTask", "response.task.name", callers=_ADMINISTRATOR),
    _changing(f"/{_TASKS}/CreateTaskBatch", "response.batch.name", callers=_ADMINISTRATOR, deadline=_BULK),
    _changing(f"/{_TASKS}/CancelTask", "request.name", callers=_ADMINISTRATOR),
    _changing(f"/{_TASKS}/CancelTaskBatch", "request.name", callers=_ADMINISTRATOR, deadline=_BULK),
    _changing(f"/{_TASKS}/ReplayTask", "response.task.name", callers=_ADMINISTRATOR),
    _changing(f"/{_TASKS}/ReplayTasks", "request.filter", callers=_ADMINISTRATOR, deadline=_BULK),
    *_reading(_DELIVERY, "ListDeliveryEvents", "ExplainTask", "ExplainAgent"),
    *_reading(
        _PACKAGING,
        "GetUpload",
        "GetPipeline",
        "ListPipelines",
        "GetPackage",
        "ListPackages",
        "ListFindings",
        "ListDeployments",
        "ListExceptions",
    ),
    *_watching(_PACKAGING, "WatchPipelines", "WatchPipelineLog", "DownloadPackage", "ExportBundle"),
    _changing(f"/{_PACKAGING}/StartUpload", "response.upload.name", callers=_ADMINISTRATOR),
    _sending(f"/{_PACKAGING}/UploadArtefact", "response.upload.name"),
    _changing(f"/{_PACKAGING}/CreatePipeline", "response.pipeline.name", callers=_ADMINISTRATOR),
    _changing(f"/{_PACKAGING}/ExecutePipeline", "request.name", callers=_ADMINISTRATOR),
    _changing(f"/{_PACKAGING}/CancelPipeline", "request.name", callers=_ADMINISTRATOR),
    _changing(f"/{_PACKAGING}/RetryPipeline", "request.name", callers=_ADMINISTRATOR),
    _changing(f"/{_PACKAGING}/DeployPackage", "response.batch.name", callers=_ADMINISTRATOR, deadline=_BULK),
    _changing(f"/{_PACKAGING}/CreateException", "response.exception.name", callers=_ADMINISTRATOR),
    # Letting a vulnerability pass is the decision of a person.
    _changing(f"/{_PACKAGING}/ApproveException", "request.name"),
    _changing(f"/{_PACKAGING}/RevokeException", "request.name"),
    _sending(f"/{_ADVISORIES}/ImportAdvisories"),
    *_reading(_ADVISORIES, "GetAdvisoryStatus"),
    *_reading(_TRUST, "GetTrust"),
    _changing(f"/{_TRUST}/InstallTrust", ""),
    *_reading(_TELEMETRY, "QueryTelemetry"),
    *_watching(_TELEMETRY, "WatchTelemetry"),
    _changing(f"/{_TOKENS}/CreateEnrollmentToken", "response.token.name"),
    Method(f"/{_TOKENS}/ListEnrollmentTokens", Arity.UNARY, _ADMIN, _OPERATOR, _READ, _ADMIN_CALL),
    _changing(f"/{_TOKENS}/RevokeEnrollmentToken", "request.name"),
    _changing(f"/{_IDENTITIES}/IssueIdentity", "response.identity.name"),
    Method(f"/{_IDENTITIES}/ListIdentities", Arity.UNARY, _ADMIN, _OPERATOR, _READ, _ADMIN_CALL),
    _changing(f"/{_IDENTITIES}/RevokeIdentity", "request.name"),
    *_reading(_SERVER, "GetServerInfo", "ListProcesses"),
    *(
        Method(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            Arity.BIDI_STREAM,
            _ADMIN,
            _ADMINISTRATOR,
            None,
            _ADMIN_STREAM,
        )
        for version in ("v1", "v1alpha")
    ),
    Method("/grpc.health.v1.Health/Check", Arity.UNARY, _PROBED, _PROBERS, _READ, _PROBE),
    Method("/grpc.health.v1.Health/List", Arity.UNARY, _PROBED, _PROBERS, _READ, _PROBE),
    Method("/grpc.health.v1.Health/Watch", Arity.SERVER_STREAM, _PROBED, _PROBERS, None, _PROBE),
    *(
        Method(f"/{_CHANNELZ}/{name}", Arity.UNARY, _ADMIN, _OPERATOR, _READ, _ADMIN_CALL)
        for name in (
            "GetTopChannels",
            "GetServers",
            "GetServer",
            "GetServerSockets",
            "GetChannel",
            "GetSubchannel",
            "GetSocket",
        )
    ),
]

METHODS: Mapping[str, Method] = MappingProxyType({method.full_name: method for method in _ROWS})
"""All methods, by full name as it stands on the wire: ``/package.Service/Method``."""


def for_listener(listener: Listener, methods: Mapping[str, Method] = METHODS) -> dict[str, Method]:
    """Return the rows that ``listener`` serves."""
    return {name: method for name, method in methods.items() if listener in method.listeners}
