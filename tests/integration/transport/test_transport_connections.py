"""What comes to a port and is no call."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from fleetwright.v1 import agent_service_pb2, enrollment_token_service_pb2
from google.protobuf import empty_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from certs.authority import make_root
from controlplane.preflight import StartRefused
from controlplane.transport.listeners import SPARE_AGENT_CONNECTIONS, Limits, Ports
from tests.integration.transport.doors import HOST, Doors, material, opened

LIST = enrollment_token_service_pb2.ListEnrollmentTokensRequest()
RENEW = agent_service_pb2.RenewCertificateRequest(certificate_signing_request=b"x")


@pytest.mark.parametrize("door", ["agents", "admin", "enrollment"])
@pytest.mark.parametrize(
    "garbage", [b"\x00" * 512, b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
)
async def test_garbage_is_dropped_and_counted(doors: Doors, door: str, garbage: bytes) -> None:
    before = doors.sample("fleetwright_tls_handshakes_total", listener=door)
    reader, writer = await asyncio.open_connection(HOST, getattr(doors.ports, door))
    writer.write(garbage)
    try:
        await reader.read()
    except ConnectionResetError:
        pass
    finally:
        writer.close()
    assert doors.sample("fleetwright_tls_handshakes_total", listener=door) == before + 1
    await doors.tokens_stub().ListEnrollmentTokens(LIST)


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01"])
async def test_handshake_that_never_finishes_is_dropped_and_holds_up_no_one(sent: bytes) -> None:
    async with opened(limits=Limits(handshake_timeout=timedelta(milliseconds=200))) as doors:
        reader, writer = await asyncio.open_connection(HOST, doors.ports.agents)
        writer.write(sent)
        await doors.agents_stub().RenewCertificate(RENEW)
        try:
            assert await reader.read() == b""
        except ConnectionResetError:
            pass
        finally:
            writer.close()


async def test_connection_over_the_limit_is_closed_at_once_and_room_comes_back() -> None:
    async with opened(limits=Limits(max_agents=1)) as doors:
        allowed = 1 + SPARE_AGENT_CONNECTIONS
        held = [await asyncio.open_connection(HOST, doors.ports.agents) for _ in range(allowed)]
        reader, writer = await asyncio.open_connection(HOST, doors.ports.agents)
        assert await reader.read() == b""
        for _, held_writer in [*held, (reader, writer)]:
            held_writer.close()
            await held_writer.wait_closed()
        await doors.agents_stub().RenewCertificate(RENEW, wait_for_ready=True)


async def test_port_in_use_is_refused_with_the_port_and_the_remedy(doors: Doors) -> None:
    taken = doors.ports
    for name in ("agents", "admin", "enrollment", "health"):
        ports = Ports(**{"agents": 0, "admin": 0, "enrollment": 0, "health": 0, name: getattr(taken, name)})
        with pytest.raises(StartRefused) as refused:
            async with opened(ports=ports):
                pass
        text = str(refused.value)
        assert str(getattr(taken, name)) in text
        assert f"FLEETWRIGHT_{name.upper()}_PORT" in text
        assert "another program" in text


async def leaf_of(port: int, alpn: str = "h2") -> bytes:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([alpn])
    _, writer = await asyncio.open_connection(HOST, port, ssl=context)
    der: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return der


async def test_new_material_serves_new_connections_and_old_ones_live_on(doors: Doors) -> None:
    stream = doors.agents_stub().Heartbeat()
    beat = agent_service_pb2.HeartbeatRequest(beat=agent_service_pb2.Beat(sequence=1))
    await stream.write(beat)
    await stream.read()
    before = await leaf_of(doors.ports.enrollment)
    doors.listeners.rotate(material(doors.agents_root, doors.operators_root))
    after = await leaf_of(doors.ports.enrollment)
    assert before != after
    assert await leaf_of(doors.ports.enrollment) == after
    await doors.agents_stub().RenewCertificate(RENEW)
    await stream.write(beat)
    assert (await stream.read()).beat_acknowledged.sequence == 1


async def test_bad_material_is_refused_and_the_old_one_stays(doors: Doors) -> None:
    before = await leaf_of(doors.ports.enrollment)
    good = material(doors.agents_root, doors.operators_root)
    other = material(doors.agents_root, doors.operators_root)
    mixed = type(good.admin)(other.admin.key_pem, good.admin.chain_pem, good.admin.client_root_pem)
    with pytest.raises(ValueError, match="key is not the one"):
        doors.listeners.rotate(type(good)(good.agents, mixed, good.enrollment))
    assert await leaf_of(doors.ports.enrollment) == before


async def test_rotation_survives_many_handshakes_at_once(doors: Doors) -> None:
    doors.listeners.rotate(material(doors.agents_root, doors.operators_root))
    stubs = [doors.agents_stub(doors.identity("agent", f"agent-{number}")) for number in range(40)]
    await asyncio.gather(*(stub.RenewCertificate(RENEW) for stub in stubs))


async def test_rotated_root_refuses_agents_of_the_old_one(doors: Doors) -> None:
    former = doors.identity("agent")
    doors.agents_root = make_root("Next", now=datetime.now(UTC))
    doors.listeners.rotate(material(doors.agents_root, doors.operators_root))
    await doors.agents_stub().RenewCertificate(RENEW)
    with pytest.raises(grpc.aio.AioRpcError):
        await doors.agents_stub(former).RenewCertificate(RENEW)


async def test_admin_port_answers_reflection_by_both_names(doors: Doors) -> None:
    channel: Any = doors.channel("operator")
    older: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    newer = channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    for call in (older.ServerReflectionInfo, newer):
        stream: Any = call()
        await stream.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        services = {s.name for s in (await stream.read()).list_services_response.service}
        await stream.done_writing()
        assert {"fleetwright.v1.TaskService", "grpc.health.v1.Health"} <= services
        assert "fleetwright.v1.AgentService" not in services


async def test_every_service_of_the_libraries_that_reflection_names_can_be_described(doors: Doors) -> None:
    channel: Any = doors.channel("operator")
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    stream = stub.ServerReflectionInfo()
    await stream.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    names = {service.name for service in (await stream.read()).list_services_response.service}
    for name in sorted(name for name in names if name.startswith("grpc.")):
        await stream.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=name))
        assert (await stream.read()).HasField("file_descriptor_response"), name
    await stream.done_writing()


@pytest.mark.parametrize(
    "name",
    [
        *("google.rpc.Status", "google.rpc.ErrorInfo", "google.rpc.BadRequest", "google.rpc.RetryInfo"),
        *("fleetwright.v1.ErrorReason", "fleetwright.v1.TaskService.CreateTask"),
    ],
)
async def test_methods_and_what_a_refusal_is_made_of_can_be_described(doors: Doors, name: str) -> None:
    channel: Any = doors.channel("integrator")
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    stream = stub.ServerReflectionInfo()
    await stream.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=name))
    assert (await stream.read()).HasField("file_descriptor_response")
    await stream.done_writing()


async def test_fields_of_the_libraries_are_described_with_their_names_in_json(doors: Doors) -> None:
    channel: Any = doors.channel("operator")
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    stream = stub.ServerReflectionInfo()
    await stream.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol="google.rpc.BadRequest"))
    files = (await stream.read()).file_descriptor_response.file_descriptor_proto
    await stream.done_writing()
    described = {file.name: file for file in map(FileDescriptorProto.FromString, files)}
    messages = described["google/rpc/error_details.proto"].message_type
    fields = [field for message in messages if message.name == "BadRequest" for field in message.field]
    assert [field.json_name for field in fields] == ["fieldViolations"]


async def test_reflection_tells_the_rules_of_a_field_and_what_declares_them(doors: Doors) -> None:
    channel: Any = doors.channel("operator")
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    stream = stub.ServerReflectionInfo()
    name = "fleetwright.v1.CreateTaskRequest"
    await stream.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=name))
    files = (await stream.read()).file_descriptor_response.file_descriptor_proto
    await stream.done_writing()
    described = {file.name: file for file in map(FileDescriptorProto.FromString, files)}
    assert "buf/validate/validate.proto" in described
    tasks = described["fleetwright/v1/task_service.proto"]
    assert "buf/validate/validate.proto" in tasks.dependency
    (message,) = (message for message in tasks.message_type if message.name == "CreateTaskRequest")
    assert b"^agents/" in message.field[0].options.SerializeToString()


async def test_admin_port_answers_channelz_to_operators(doors: Doors) -> None:
    channel: Any = doors.channel("operator")
    stub: Any = channelz_pb2_grpc.ChannelzStub(channel)
    assert (await stub.GetServers(channelz_pb2.GetServersRequest())).server


async def test_admin_port_answers_health_and_no_channelz_to_integrators(doors: Doors) -> None:
    channel: Any = doors.channel("integrator")
    stub: Any = channelz_pb2_grpc.ChannelzStub(channel)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.GetServers(channelz_pb2.GetServersRequest())
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert await health_of(channel) == health_pb2.HealthCheckResponse.SERVING


async def health_of(channel: grpc.aio.Channel, service: str = "") -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    return int(answer.status)


async def test_health_is_told_by_both_ports_and_ends_with_the_drain(doors: Doors) -> None:
    channels = [doors.channel("operator"), doors.plain(doors.ports.health)]
    for channel in channels:
        assert await health_of(channel) == health_pb2.HealthCheckResponse.SERVING
        assert await health_of(channel, "fleetwright.v1.AgentService") == 1
    await doors.listeners.health.not_serving()
    for channel in channels:
        assert await health_of(channel) == health_pb2.HealthCheckResponse.NOT_SERVING


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_listener_of_probes_leaves_no_file_behind_even_where_it_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    async with opened() as doors:
        assert await health_of(doors.plain(doors.ports.health)) == health_pb2.HealthCheckResponse.SERVING
        assert files(tmp_path) == []


async def test_health_can_be_watched(doors: Doors) -> None:
    stub: Any = health_pb2_grpc.HealthStub(doors.plain(doors.ports.health))
    watch = stub.Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    await doors.listeners.health.not_serving()
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING


async def http(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_metrics_and_probes_are_served_over_http(doors: Doors) -> None:
    port = doors.ports.health
    await doors.tokens_stub().ListEnrollmentTokens(LIST)
    metrics = await http(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert metrics.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b'grpc_method="ListEnrollmentTokens"' in metrics
    assert b"process_open_fds" in metrics
    assert (await http(port, b"GET /healthz HTTP/1.1\r\n\r\n")).endswith(b"\r\n\r\nok\n")
    assert b" 200 " in await http(port, b"GET /readyz?verbose HTTP/1.1\r\n\r\n")
    await doors.listeners.health.not_serving()
    assert b" 503 " in await http(port, b"GET /readyz HTTP/1.1\r\n\r\n")
    assert b" 404 " in await http(port, b"GET /secrets HTTP/1.1\r\n\r\n")
    assert b" 405 " in await http(port, b"POST /metrics HTTP/1.1\r\n\r\n")
    assert (await http(port, b"HEAD /healthz HTTP/1.1\r\n\r\n")).endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00",
        b"nonsense\r\n\r\n",
        b"PRI * HTTP/9.9\r\n\r\nSM\r\n\r\n",
        b"GET /" + b"a" * 20_000,
        b"PRI ",
    ],
)
async def test_garbage_on_the_health_port_is_dropped_and_counted(garbage: bytes) -> None:
    async with opened(limits=Limits(health_head_timeout=timedelta(milliseconds=100))) as doors:
        reader, writer = await asyncio.open_connection(HOST, doors.ports.health)
        writer.write(garbage)
        try:
            assert await reader.read() == b""
        except ConnectionResetError:
            pass
        finally:
            writer.close()
        assert doors.sample("fleetwright_health_connections_total", protocol="garbage") == 1
        assert b" 200 " in await http(doors.ports.health, b"GET /healthz HTTP/1.1\r\n\r\n")


async def test_silence_on_the_health_port_is_dropped_and_counted() -> None:
    async with opened(limits=Limits(health_head_timeout=timedelta(milliseconds=20))) as doors:
        reader, writer = await asyncio.open_connection(HOST, doors.ports.health)
        assert await reader.read() == b""
        writer.close()
        assert doors.sample("fleetwright_health_connections_total", protocol="silent") == 1


async def test_health_port_speaks_of_nothing_else(doors: Doors) -> None:
    call: Any = doors.plain(doors.ports.health).unary_unary(
        "/fleetwright.v1.EnrollmentTokenService/ListEnrollmentTokens",
        request_serializer=empty_pb2.Empty.SerializeToString,
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(empty_pb2.Empty())
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
