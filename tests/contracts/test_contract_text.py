"""What the contracts say in comments and rules, read from the compiled descriptors with their source."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import grpc
import pytest
from buf.validate import validate_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

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


def rules_of(field: FieldDescriptorProto) -> validate_pb2.FieldRules:
    return field.options.Extensions[validate_pb2.field]


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


def test_every_name_in_a_request_has_a_pattern(files: list[FileDescriptorProto]) -> None:
    without = [
        f"{message.name}.{field.name}"
        for message in requests(files)
        for field in message.field
        if field.name in {"name", "parent"} and not rules_of(field).string.pattern
    ]
    assert without == []


def test_every_text_and_every_list_of_a_request_is_bounded(files: list[FileDescriptorProto]) -> None:
    unbounded = [
        f"{message.name}.{field.name}"
        for message in requests(files)
        for field in message.field
        if not is_bounded(field)
    ]
    assert unbounded == []


def is_bounded(field: FieldDescriptorProto) -> bool:
    rules = rules_of(field)
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return rules.repeated.HasField("max_items") or rules.map.HasField("max_pairs")
    if field.type == FieldDescriptorProto.TYPE_STRING:
        text = rules.string
        return text.HasField("max_len") or text.HasField("pattern") or text.HasField("uuid")
    if field.type == FieldDescriptorProto.TYPE_BYTES:
        return rules.bytes.HasField("max_len") or rules.bytes.HasField("len")
    return True
