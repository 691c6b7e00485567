"""Operators who let others in and shut them out, on the real server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from fleetwright.v1 import identity_service_pb2 as pb2
from fleetwright.v1 import identity_service_pb2_grpc as pb2_grpc
from fleetwright.v1 import server_service_pb2, server_service_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from certs.requests import SigningRequest, good
from controlplane import VERSION
from controlplane.storage import migrate
from controlplane.transport import standing
from controlplane.trust import setup
from tests.integration.transport.doors import refusal
from tests.support.admin import Admin
from tests.support.agents import RawAgent
from tests.support.in_process import LocalSite, serving
from tests.support.streams import refused


def identities(admin: Admin) -> Any:
    return pb2_grpc.IdentityServiceStub(admin.channel)


def request_of(name: str, key: SigningRequest, **fields: Any) -> pb2.IssueIdentityRequest:
    fields.setdefault("role", pb2.ADMIN_ROLE_OPERATOR)
    return pb2.IssueIdentityRequest(display_name=name, certificate_signing_request=key.der, **fields)


async def issue(site: LocalSite, by: Admin, folder: Path, name: str, **fields: Any) -> tuple[Admin, str]:
    """Have an identity issued by ``by``; return its owner, and its name."""
    key = good(name)
    answer = await identities(by).IssueIdentity(request_of(name, key, **fields))
    target = folder / answer.identity.name.replace("/", "-")
    target.mkdir()
    for file, content in (("key", key.key_pem), ("cert", answer.certificate), ("ca", answer.root)):
        (target / f"{file}.pem").write_bytes(content)
    return site.admin(target), answer.identity.name


async def by_name(admin: Admin) -> dict[str, pb2.Identity]:
    page = await identities(admin).ListIdentities(pb2.ListIdentitiesRequest())
    return {identity.display_name: identity for identity in page.identities}


async def revoke(admin: Admin, name: str) -> pb2.Identity:
    identity: pb2.Identity = (
        await identities(admin).RevokeIdentity(pb2.RevokeIdentityRequest(name=name))
    ).identity
    return identity


async def test_one_who_was_issued_an_identity_calls_as_what_it_says(
    site: LocalSite, admin: Admin, agent: RawAgent, tmp_path: Path
) -> None:
    night, _ = await issue(site, admin, tmp_path, "night")
    ticketing, _ = await issue(site, night, tmp_path, "ticketing", role=pb2.ADMIN_ROLE_INTEGRATOR)
    assert (
        await ticketing.create(agent.agent_id)
    ).creator == "spiffe://fleetwright.local/integrator/ticketing"
    found = await by_name(night)
    assert {name: (i.role, i.state, i.creator) for name, i in found.items()} == {
        "admin": (pb2.ADMIN_ROLE_OPERATOR, pb2.IDENTITY_STATE_ACTIVE, ""),
        "night": (
            pb2.ADMIN_ROLE_OPERATOR,
            pb2.IDENTITY_STATE_ACTIVE,
            "spiffe://fleetwright.local/operator/admin",
        ),
        "ticketing": (
            pb2.ADMIN_ROLE_INTEGRATOR,
            pb2.IDENTITY_STATE_ACTIVE,
            "spiffe://fleetwright.local/operator/night",
        ),
    }


async def test_an_identity_is_described_as_its_certificate_is(
    site: LocalSite, admin: Admin, tmp_path: Path
) -> None:
    request = request_of("night", good("night"))
    request.ttl.FromTimedelta(timedelta(hours=3))
    answer = await identities(admin).IssueIdentity(request)
    certificate = x509.load_pem_x509_certificate(answer.certificate)
    assert answer.root == site.operators_root
    assert answer.identity.name == f"identities/{certificate.serial_number:x}"
    assert answer.identity.spiffe_id == "spiffe://fleetwright.local/operator/night"
    assert answer.identity.expire_time.ToDatetime(UTC) == certificate.not_valid_after_utc
    life = answer.identity.expire_time.ToDatetime(UTC) - answer.identity.create_time.ToDatetime(UTC)
    assert timedelta(hours=3) - timedelta(seconds=1) <= life <= timedelta(hours=3)
    assert not answer.identity.HasField("revoke_time")


async def test_one_who_was_revoked_is_refused_and_its_watch_ends(
    site: LocalSite, admin: Admin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing, "CHECKED_EVERY", timedelta(milliseconds=5))
    night, name = await issue(site, admin, tmp_path, "night")
    watch = await night.watch_agents()
    assert (await revoke(admin, name)).state == pb2.IDENTITY_STATE_REVOKED
    assert (await refused(watch)).reason == "CERTIFICATE_REVOKED"
    denied = await refusal(night.token())
    assert denied.code is grpc.StatusCode.UNAUTHENTICATED
    assert denied.reason == "CERTIFICATE_REVOKED"
    assert "ask an operator for another" in denied.text
    assert (await by_name(admin))["night"].HasField("revoke_time")


async def test_a_stream_of_reflection_ends_with_its_identity(
    site: LocalSite, admin: Admin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standing, "CHECKED_EVERY", timedelta(milliseconds=5))
    night, name = await issue(site, admin, tmp_path, "night")
    channel: Any = night.channel  # the stubs know synchronous ones only
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    stream = stub.ServerReflectionInfo()
    await stream.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    assert (await stream.read()).list_services_response.service
    await revoke(admin, name)
    assert (await refused(stream)).reason == "CERTIFICATE_REVOKED"


async def test_a_revocation_outlives_the_server(folder: Path, tmp_path: Path) -> None:
    async with serving(folder) as site:
        _, name = await issue(site, site.admin(), tmp_path, "night")
        await revoke(site.admin(), name)
    async with serving(folder) as site:
        denied = await refusal(site.admin(tmp_path / name.replace("/", "-")).token())
        assert denied.reason == "CERTIFICATE_REVOKED"
        await site.admin().token()


async def test_one_that_was_issued_offline_is_accepted_listed_and_revoked(
    site: LocalSite, admin: Admin
) -> None:
    offline = site.admin(setup.issue_identity(site.folder, "operator", "offline", datetime.now(UTC)))
    await offline.token()
    known = (await by_name(admin))["offline"]
    assert known.creator == ""
    await revoke(admin, known.name)
    assert (await refusal(offline.token())).reason == "CERTIFICATE_REVOKED"


async def test_the_last_operator_cannot_lock_everyone_out(site: LocalSite, admin: Admin) -> None:
    mine = (await by_name(admin))["admin"].name
    last = await refusal(revoke(admin, mine))
    assert (last.code, last.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "OPERATOR_LAST")
    assert "issue another one first" in last.text
    await admin.token()


async def test_a_request_that_is_none_names_the_field_and_issues_nothing(
    site: LocalSite, admin: Admin
) -> None:
    await by_name(admin)  # records the caller itself
    async with site.nothing_changes("CSR_MALFORMED"):
        answer = await refusal(
            identities(admin).IssueIdentity(request_of("night", SigningRequest(b"garbage", b"")))
        )
        assert answer.code is grpc.StatusCode.INVALID_ARGUMENT
        assert list(answer.fields) == ["certificate_signing_request"]
        assert "send PKCS #10 in DER" in answer.text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("display_name", "Night Shift"),
        ("role", pb2.ADMIN_ROLE_UNSPECIFIED),
        ("ttl", timedelta(seconds=59)),
        ("ttl", timedelta(days=1097)),
    ],
)
async def test_a_wish_beyond_the_rules_names_the_field(
    site: LocalSite, admin: Admin, field: str, value: Any
) -> None:
    request = request_of("night", good("night"))
    if isinstance(value, timedelta):
        request.ttl.FromTimedelta(value)
    else:
        setattr(request, field, value)
    answer = await refusal(identities(admin).IssueIdentity(request))
    assert answer.reason == "VALIDATION_FAILED"
    assert list(answer.fields) == [field]


async def test_an_integrator_decides_of_no_identity(site: LocalSite, admin: Admin, tmp_path: Path) -> None:
    integrator, name = await issue(site, admin, tmp_path, "ticketing", role=pb2.ADMIN_ROLE_INTEGRATOR)
    calls = [
        identities(integrator).IssueIdentity(request_of("night", good("night"))),
        identities(integrator).ListIdentities(pb2.ListIdentitiesRequest()),
        identities(integrator).RevokeIdentity(pb2.RevokeIdentityRequest(name=name)),
    ]
    for call in calls:
        assert (await refusal(call)).reason == "IDENTITY_NOT_ALLOWED"
    assert list(await by_name(admin)) == ["ticketing", "admin"]


async def test_a_server_tells_what_it_is(folder: Path, tmp_path: Path) -> None:
    before = datetime.now(UTC)
    async with serving(folder, max_agents=77) as site:
        started = datetime.now(UTC)
        admin = site.admin()
        _, token = await admin.token()
        await (await site.enroll("node-1", token)).come()
        integrator, _ = await issue(site, admin, tmp_path, "ticketing", role=pb2.ADMIN_ROLE_INTEGRATOR)
        stub: Any = server_service_pb2_grpc.ServerServiceStub(integrator.channel)
        asked = datetime.now(UTC)
        info = await stub.GetServerInfo(server_service_pb2.GetServerInfoRequest())
        assert asked <= info.server_time.ToDatetime(UTC) <= datetime.now(UTC)
        assert before <= info.start_time.ToDatetime(UTC) <= started
        assert (info.version, info.schema_version) == (VERSION, migrate.head())
        assert (info.max_agents, info.sessions) == (77, 1)
        assert info.trust_domain == "fleetwright.local"
        assert info.caller == "spiffe://fleetwright.local/integrator/ticketing"
