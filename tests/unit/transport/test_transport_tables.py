"""The tables of the transport, held against what they speak of: the contract and the installed library."""

from __future__ import annotations

import importlib
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fleetwright.v1 import errors_pb2
from grpc_channelz.v1 import channelz_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from controlplane import preflight
from controlplane.callers import IdentityKind
from controlplane.transport import channel_options, errors, health_listener, listeners
from controlplane.transport.methods import METHODS, Arity, Listener, Method

ROOT = Path(__file__).parents[3]
SECOND = timedelta(seconds=1)

OPTIONS = {
    "agents": channel_options.agent_listener(
        handshake_timeout=SECOND,
        keepalive=SECOND,
        ping_timeout=SECOND,
        max_connection_age=SECOND,
        max_connections=9,
    ),
    "admin": channel_options.admin_listener(
        handshake_timeout=SECOND, keepalive=SECOND, ping_timeout=SECOND, max_connections=9
    ),
    "enrollment": channel_options.enrollment_listener(
        handshake_timeout=SECOND, keepalive=SECOND, ping_timeout=SECOND, max_connections=9
    ),
    "health": channel_options.health_server(),
}


def descriptors() -> list[Any]:
    modules = [
        importlib.import_module(f"fleetwright.v1.{path.stem}_pb2")
        for path in (ROOT / "proto/fleetwright/v1").glob("*.proto")
    ]
    modules += [health_pb2, channelz_pb2, reflection_pb2]
    return [service for module in modules for service in module.DESCRIPTOR.services_by_name.values()]


def served() -> dict[str, Any]:
    methods = {f"/{s.full_name}/{m.name}": m for s in descriptors() for m in s.methods}
    newer = {name.replace(".v1alpha.", ".v1."): m for name, m in methods.items() if ".v1alpha." in name}
    return {**methods, **newer}


def test_every_method_of_the_contract_and_of_the_diagnostics_is_listed() -> None:
    assert set(METHODS) == set(served())


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda m: m.full_name)
def test_arity_is_that_of_the_contract_and_only_unary_calls_have_a_deadline(method: Method) -> None:
    descriptor = served()[method.full_name]
    arity = {
        (False, False): Arity.UNARY,
        (False, True): Arity.SERVER_STREAM,
        (True, False): Arity.CLIENT_STREAM,
        (True, True): Arity.BIDI_STREAM,
    }[descriptor.client_streaming, descriptor.server_streaming]
    assert method.arity is arity
    assert (method.deadline is not None) is (arity is Arity.UNARY)
    assert method.rate.per_second > 0
    assert method.rate.burst >= 1


@pytest.mark.parametrize("method", [m for m in METHODS.values() if m.resource], ids=lambda m: m.full_name)
def test_resource_of_the_audit_line_is_a_field_of_the_contract(method: Method) -> None:
    descriptor = served()[method.full_name]
    side, *path = method.resource.split(".")
    message = descriptor.input_type if side == "request" else descriptor.output_type
    for name in path:
        field = message.fields_by_name[name]
        message = field.message_type
    assert message is None


def administrative(kind: IdentityKind) -> set[str]:
    return {
        m.name
        for m in METHODS.values()
        if Listener.ADMIN in m.listeners and m.service.startswith("fleetwright.") and kind in m.callers
    }


def test_operator_may_call_every_administrative_method() -> None:
    assert administrative(IdentityKind.OPERATOR) == {
        m.name
        for m in METHODS.values()
        if Listener.ADMIN in m.listeners and m.service.startswith("fleetwright.")
    }


def test_integrator_may_read_and_make_work_and_nothing_else() -> None:
    reading = re.compile(r"(Get|List|Watch|Query|Read|Explain|Download|Export)\w+")
    allowed = administrative(IdentityKind.INTEGRATOR)
    everything = administrative(IdentityKind.OPERATOR)
    work = {"CreateTask", "CreateTaskBatch", "CancelTask", "CancelTaskBatch", "ReplayTask", "ReplayTasks"}
    work |= {"StartUpload", "UploadArtefact", "CreatePipeline", "ExecutePipeline", "CancelPipeline"}
    work |= {"RetryPipeline", "DeployPackage", "CreateException", "ImportAdvisories"}
    secret = re.compile(r"\w*(Token|Identit)\w*")
    assert allowed == {n for n in everything if reading.fullmatch(n) and not secret.fullmatch(n)} | work


def test_agents_and_anonymous_callers_have_no_administrative_method() -> None:
    assert administrative(IdentityKind.AGENT) == set()
    assert administrative(IdentityKind.ANONYMOUS) == set()


def test_agents_listener_serves_agents_only_and_enrolment_one_method() -> None:
    agents = [m for m in METHODS.values() if Listener.AGENTS in m.listeners]
    assert {m.service for m in agents} == {"fleetwright.v1.AgentService"}
    assert {k for m in agents for k in m.callers} == {IdentityKind.AGENT}
    enrolment = [m for m in METHODS.values() if Listener.ENROLLMENT in m.listeners]
    assert [m.name for m in enrolment] == ["Enroll"]


def test_every_change_is_audited() -> None:
    changing = re.compile(
        r"(Create|Update|Delete|Cancel|Replay|Issue|Revoke|Enroll|Renew)\w*"
        r"|(Start|Upload|Execute|Retry|Deploy|Approve|Import|Install)\w*"
    )
    for method in METHODS.values():
        assert method.audited is bool(changing.fullmatch(method.name)), method.full_name


@pytest.mark.parametrize("name", sorted({name for options in OPTIONS.values() for name, _ in options}))
def test_channel_argument_is_known_to_the_installed_library(name: str) -> None:
    library = Path(importlib.import_module("grpc._cython.cygrpc").__file__ or "").read_bytes()
    assert name.encode() + b"\0" in library


@pytest.mark.parametrize("listener", OPTIONS)
def test_no_channel_argument_is_set_twice(listener: str) -> None:
    names = [name for name, _ in OPTIONS[listener]]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("listener", ["agents", "admin", "enrollment"])
def test_second_server_cannot_share_a_port(listener: str) -> None:
    assert dict(OPTIONS[listener])[channel_options.SO_REUSEPORT] == 0


def test_listeners_share_the_files_that_are_reserved_for_them() -> None:
    allowed = (
        listeners.SPARE_AGENT_CONNECTIONS
        + listeners.ADMIN_CONNECTIONS
        + listeners.ENROLLMENT_CONNECTIONS
        + 2 * health_listener.MAX_CONNECTIONS
    )
    assert allowed + 128 <= preflight.RESERVED_FILES


def documented_codes() -> dict[str, str]:
    text = (ROOT / "proto/fleetwright/v1/errors.proto").read_text()
    body = text[text.index("enum ErrorReason {") :]
    commented = re.findall(r"((?: *//.*\n)+) *ERROR_REASON_(\w+) =", body)
    return {
        reason: code[1]
        for comment, reason in commented
        if (code := re.match(r" *// ([A-Z_]+): ", comment)) is not None
    }


def test_every_reason_of_the_contract_has_the_code_that_it_documents() -> None:
    reasons = [name.removeprefix("ERROR_REASON_") for name in errors_pb2.ErrorReason.keys()]  # noqa: SIM118 # no mapping
    assert set(errors.CODES_BY_REASON) == set(reasons) - {"UNSPECIFIED"}
    assert {reason: code.name for reason, code in errors.CODES_BY_REASON.items()} == documented_codes()


def test_gateways_of_one_server_share_the_port_for_agents() -> None:
    second = timedelta(seconds=1)
    options = channel_options.agent_listener(
        handshake_timeout=second,
        keepalive=second,
        ping_timeout=second,
        max_connection_age=second,
        max_connections=1,
        shared=True,
    )
    assert dict(options)[channel_options.SO_REUSEPORT] == 1
