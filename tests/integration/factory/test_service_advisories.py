"""Imports of advisories through a real server."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from fleetwright.v1 import advisory_service_pb2 as pb2

from tests.integration.factory.factory_world import Factory, factory_of

NOW = datetime.now(UTC)


@pytest.fixture
async def factory(folder: Path) -> AsyncIterator[Factory]:
    async with factory_of(folder) as made:
        yield made


def record(
    number: int, age: timedelta = timedelta(), ecosystems: Sequence[str] = ("PyPI",)
) -> dict[str, Any]:
    return {
        "id": f"TEST-{number}",
        "modified": (NOW - age).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "affected": [
            {"package": {"ecosystem": one, "name": "demo"}, "versions": ["1.0"]} for one in ecosystems
        ],
    }


def export(*records: dict[str, Any]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for one in records:
            archive.writestr(f"{one['id']}.json", json.dumps(one))
    return made.getvalue()


async def imported(factory: Factory, content: bytes, **fields: Any) -> pb2.ImportAdvisoriesResponse:
    opening = {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), **fields}

    async def messages() -> AsyncIterator[pb2.ImportAdvisoriesRequest]:
        yield pb2.ImportAdvisoriesRequest(open=pb2.ImportOpen(**opening))
        for place in range(0, len(content), 100):
            yield pb2.ImportAdvisoriesRequest(data=content[place : place + 100])

    answer: pb2.ImportAdvisoriesResponse = await factory.advisories.ImportAdvisories(messages())
    return answer


async def test_an_export_tells_its_ecosystem_and_is_in_force(factory: Factory) -> None:
    answer = await imported(
        factory, export(record(1, ecosystems=["PyPI", "npm"]), record(2, timedelta(days=1)), record(3))
    )
    [known] = answer.ecosystems
    assert (known.ecosystem, known.advisory_count, known.import_version, known.stale) == ("PyPI", 3, 1, False)
    status = await factory.advisories.GetAdvisoryStatus(pb2.GetAdvisoryStatusRequest())
    assert list(status.ecosystems) == [known]


async def test_old_advisories_are_shown_to_be_stale(factory: Factory) -> None:
    answer = await imported(factory, export(record(1, timedelta(days=30))), ecosystem="PyPI")
    assert answer.ecosystems[0].stale


async def test_an_older_export_is_a_rollback_unless_it_is_meant(factory: Factory) -> None:
    await imported(factory, export(record(1)))
    older = export(record(1, timedelta(days=2)))
    with pytest.raises(grpc.aio.AioRpcError, match="less far") as error:
        await imported(factory, older)
    assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert (await imported(factory, older, allow_older=True)).ecosystems[0].import_version > 1


@pytest.mark.parametrize(
    ("content", "fields", "said"),
    [
        (b"no zip at all", {}, "zip"),
        (export(), {}, "no records"),
        (export({"id": "x"}), {}, "x.json"),
        (export(record(1, ecosystems=["PyPI", "npm"])), {}, "which ecosystem"),
        (export(record(1)), {"ecosystem": "Fortran"}, "open.ecosystem"),
        (export(record(1)), {"sha256": "0" * 64}, "announced"),
        (export(record(1)), {"size_bytes": 9}, "more than the 9 bytes"),
        (export(record(1)), {"size_bytes": 1 << 20}, "of the 1048576 bytes"),
        (export(record(1)), {"size_bytes": 1 << 32}, "open.size_bytes"),
    ],
)
async def test_what_is_no_export_is_refused_and_nothing_is_known(
    factory: Factory, content: bytes, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await imported(factory, content, **fields)
    assert said in (error.value.details() or "")
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert str(factory.site.folder) not in (error.value.details() or ""), (
        "callers know nothing of our folders"
    )
    status = await factory.advisories.GetAdvisoryStatus(pb2.GetAdvisoryStatusRequest())
    assert not status.ecosystems


@pytest.mark.parametrize("order", ["nothing", "data", "twice"])
async def test_an_import_begins_with_its_announcement_and_has_one(factory: Factory, order: str) -> None:
    opening = pb2.ImportAdvisoriesRequest(open=pb2.ImportOpen(size_bytes=9, sha256="0" * 64))
    data = pb2.ImportAdvisoriesRequest(data=b"x")

    async def messages() -> AsyncIterator[pb2.ImportAdvisoriesRequest]:
        for one in {"nothing": [], "data": [data], "twice": [opening, data, opening]}[order]:
            yield one

    with pytest.raises(grpc.aio.AioRpcError, match="open: "):
        await factory.advisories.ImportAdvisories(messages())
