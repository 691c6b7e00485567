"""Two processes that take administrators' calls on one PostgreSQL, at the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
import pytest_asyncio
from fleetwright.v1 import identity_service_pb2, identity_service_pb2_grpc, task_service_pb2, work_pb2

from controlplane.storage.location import Postgres
from controlplane.storage.migrate import upgrade
from controlplane.trust import setup
from tests.support.admin import Admin
from tests.support.in_process import LocalSite, serving

pytestmark = pytest.mark.slow

ROUNDS = 25


class Two(NamedTuple):
    first: LocalSite
    second: LocalSite

    @property
    def admins(self) -> tuple[Admin, Admin]:
        return self.first.admin(), self.second.admin()


@pytest_asyncio.fixture
async def sites(folder: Path, database_url: str) -> AsyncIterator[Two]:
    await asyncio.to_thread(upgrade, Postgres(database_url))
    async with (
        serving(folder, database_url=database_url) as first,
        serving(folder, database_url=database_url, roles="api") as second,
    ):
        yield Two(first, second)


async def test_one_request_through_both_makes_one_task(sites: Two) -> None:
    _, token = await sites.first.admin().token()
    await sites.first.enroll("a1", token)
    admins = sites.admins
    for number in range(ROUNDS):
        made = await asyncio.gather(
            *(admin.create("a1", b"same", request_id=f"request-{number}") for admin in admins)
        )
        assert made[0].name == made[1].name
    assert len(await admins[0].all_tasks()) == ROUNDS


async def test_one_request_for_a_batch_through_both_makes_one_batch_or_asks_to_try_again(sites: Two) -> None:
    _, token = await sites.first.admin().token()
    await sites.first.enroll("a1", token)
    spec = work_pb2.TaskSpec(echo=work_pb2.EchoSpec(payload=b"x"))

    async def batch(admin: Admin, request_id: str) -> str:
        request = task_service_pb2.CreateTaskBatchRequest(selector="*", spec=spec, request_id=request_id)
        while True:
            try:
                return str((await admin.tasks.CreateTaskBatch(request)).batch.name)
            except grpc.aio.AioRpcError as error:
                if "try again" not in (error.details() or ""):
                    raise

    for number in range(ROUNDS):
        names = await asyncio.gather(*(batch(admin, f"request-{number}") for admin in sites.admins))
        assert names[0] == names[1]
    assert len(await sites.first.admin().all_tasks()) == ROUNDS


async def test_two_operators_that_revoke_themselves_at_once_leave_one(sites: Two) -> None:
    assert await refusals(sites, own=True) == [grpc.StatusCode.FAILED_PRECONDITION]


async def test_of_two_operators_that_revoke_each_other_at_once_one_does(sites: Two) -> None:
    assert await refusals(sites, own=False) == [grpc.StatusCode.UNAUTHENTICATED]


async def refusals(sites: Two, *, own: bool) -> list[grpc.StatusCode]:
    """Let two operators, each through a process, revoke their own identity or the other's at once."""
    first, _ = sites.admins
    folder = setup.issue_identity(sites.first.folder, "operator", "other", datetime.now(UTC))
    second = sites.second.admin(folder)
    names = await known(first) | await known(second)
    mine, others = names["admin"], names["other"]
    ended = await asyncio.gather(
        revoke(first, mine if own else others),
        revoke(second, others if own else mine),
        return_exceptions=True,
    )
    return [one.code() for one in ended if isinstance(one, grpc.aio.AioRpcError)]


def identities(admin: Admin) -> Any:
    return identity_service_pb2_grpc.IdentityServiceStub(admin.channel)


async def known(admin: Admin) -> dict[str, str]:
    """Return the names of the identities that are known by now, the caller's own too, by display name."""
    listed = await identities(admin).ListIdentities(identity_service_pb2.ListIdentitiesRequest())
    return {identity.display_name: identity.name for identity in listed.identities}


async def revoke(admin: Admin, name: str) -> object:
    return await identities(admin).RevokeIdentity(identity_service_pb2.RevokeIdentityRequest(name=name))
