"""What the contracts say in comments and rules, read from the compiled descriptors with their source."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

from scripts import contract

ROOT = Path(__file__).parents[2]
STATUS_CODES = {code.name for code in grpc.StatusCode}


class Commented(NamedTuple):
    """A named thing of the contract and the comment above it."""

    kind: str
    full_name: str
    comment: str

    @property
    def name(self) -> str:
        return self.full_name.rsplit(".", 1)[-1]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[FileDescriptorProto]:
    compiled = tmp_path_factory.mktemp("contract") / "contract.binpb"
    sources = sorted(str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto").rglob("*.proto"))
    command = [sys.executable, "-m", "grpc_tools.protoc", "-Iproto", "-Ithird_party/proto"]
    command += ["--include_source_info", f"--descriptor_set_out={compiled}", *sources]
    subprocess.run(command, check=True, cwd=ROOT)
    return list(FileDescriptorSet.FromString(compiled.read_bytes()).file)


@pytest.fixture(scope="module")
def things(files: list[FileDescriptorProto]) -> list[Commented]:
    return [thing for file in files for thing in things_of(file)]


def things_of(file: FileDescriptorProto) -> Iterator[Commented]:
    """Yield every service, method, message, field, enum and value; numbers are fields of descriptor.proto."""
    comments = {
        tuple(location.path): location.leading_comments.strip() for location in file.source_code_info.location
    }

    def thing(kind: str, name: str, *path: int) -> Commented:
        return Commented(kind, name, comments.get(path, ""))

    for s, service in enumerate(file.service):
        yield thing("service", service.name, 6, s)
        for m, method in enumerate(service.method):
            yield thing("method", f"{service.name}.{method.name}", 6, s, 2, m)
    for i, message in enumerate(file.message_type):
        yield thing("message", message.name, 4, i)
        for f, field in enumerate(message.field):
            yield thing("field", f"{message.name}.{field.name}", 4, i, 2, f)
    for e, enum in enumerate(file.enum_type):
        yield thing("enum", enum.name, 5, e)
        for v, value in enumerate(enum.value):
            yield thing("value", f"{enum.name}.{value.name}", 5, e, 2, v)


def requests(files: list[FileDescriptorProto]) -> list[DescriptorProto]:
    return [message for file in files for message in file.message_type if message.name.endswith("Request")]


POOL = descriptor_pool.DescriptorPool()
for declared in FileDescriptorSet.FromString(
    (ROOT / "proto/python/fleetwright/contract.binpb").read_bytes()
).file:
    POOL.Add(declared)
OPTIONS: Any = message_factory.GetMessageClass(POOL.FindMessageTypeByName("google.protobuf.FieldOptions"))


@pytest.fixture(scope="module")
def rules() -> dict[str, dict[str, str]]:
    published = ROOT / "proto/python/fleetwright/contract.binpb"
    return contract.rules(FileDescriptorSet.FromString(published.read_bytes()))


def test_the_walk_reaches_services_fields_and_reasons(things: list[Commented]) -> None:
    names = {thing.full_name for thing in things}
    assert {
        "AgentService.Heartbeat",
        "EnrollRequest.agent_id",
        "ErrorReason.ERROR_REASON_TOKEN_EXPIRED",
    } <= names


def test_everything_is_commented(things: list[Commented]) -> None:
    assert [thing.full_name for thing in things if not thing.comment] == []


def test_a_comment_begins_with_the_name_of_what_it_explains(things: list[Commented]) -> None:
    begins_otherwise = [
        thing.full_name
        for thing in things
        if thing.kind not in {"field", "value"} and thing.comment.split()[0].strip(":,.;'`") != thing.name
    ]
    assert begins_otherwise == []


def test_every_reason_says_its_status_code_and_what_it_means(things: list[Commented]) -> None:
    reasons = [thing for thing in things if thing.full_name.startswith("ErrorReason.ERROR_REASON_")]
    undocumented = [
        reason.name
        for reason in reasons
        if not reason.name.endswith("_UNSPECIFIED")
        and (
            reason.comment.partition(":")[0] not in STATUS_CODES
            or len(reason.comment.partition(":")[2].split()) < 4
        )
    ]
    assert undocumented == []
    assert len({reason.name for reason in reasons}) == len(reasons)


def test_no_two_reasons_mean_the_same(things: list[Commented]) -> None:
    meanings = [
        t.comment.partition(":")[2] for t in things if t.full_name.startswith("ErrorReason.ERROR_REASON_")
    ]
    assert len(set(meanings)) == len(meanings)


def test_every_name_in_a_request_has_a_pattern(
    files: list[FileDescriptorProto], rules: dict[str, dict[str, str]]
) -> None:
    without = [
        f"{message.name}.{field.name}"
        for message in requests(files)
        for field in message.field
        if field.name in {"name", "parent"} and "string.pattern" not in rules[full_name(message, field)]
    ]
    assert without == []


def test_every_text_and_every_list_of_a_request_is_bounded(
    files: list[FileDescriptorProto], rules: dict[str, dict[str, str]]
) -> None:
    unbounded = [
        f"{message.name}.{field.name}"
        for message in requests(files)
        for field in message.field
        if not is_bounded(field, rules[full_name(message, field)].keys())
    ]
    assert unbounded == []


def full_name(message: DescriptorProto, field: FieldDescriptorProto) -> str:
    return f"fleetwright.v1.{message.name}.{field.name}"


def is_bounded(field: FieldDescriptorProto, rules: Set[str]) -> bool:
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return not rules.isdisjoint({"repeated.max_items", "map.max_pairs"})
    if field.type == FieldDescriptorProto.TYPE_STRING:
        return not rules.isdisjoint({"string.max_len", "string.max_bytes", "string.pattern", "string.uuid"})
    if field.type == FieldDescriptorProto.TYPE_BYTES:
        return not rules.isdisjoint({"bytes.max_len", "bytes.len"})
    return True
