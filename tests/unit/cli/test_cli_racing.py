"""What the command does where someone else was faster."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from fleetwright.errors import ERROR_DOMAIN
from fleetwright.v1.agent_registry_service_pb2 import (
    Agent,
    GetAgentRequest,
    GetAgentResponse,
    UpdateAgentRequest,
    UpdateAgentResponse,
)
from fleetwright.v1.identity_service_pb2 import (
    Identity,
    IssueIdentityRequest,
    IssueIdentityResponse,
    RevokeIdentityRequest,
)
from fleetwright.v1.task_service_pb2 import (
    CancelTaskBatchRequest,
    CancelTaskBatchResponse,
    CancelTaskRequest,
    CancelTaskResponse,
    Task,
    TaskBatch,
)
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from controlplane.cli.agents import ETAG_TRIES, relabel
from controlplane.cli.failures import CommandFailed
from controlplane.cli.identities import signed
from controlplane.cli.output import Output
from controlplane.cli.tasks.cancelling import cancel_all
from controlplane.trust.handover import UnsignedIdentity


class Refused(grpc.RpcError):
    """What a call raises."""

    def __init__(self, code: grpc.StatusCode, reason: str = "") -> None:
        self._code = code
        self._reason = reason

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return ""

    def trailing_metadata(self) -> Any:
        if not self._reason:
            return ()
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.ErrorInfo(reason=self._reason, domain=ERROR_DOMAIN))
        status = status_pb2.Status(details=[detail])
        return (("grpc-status-details-bin", status.SerializeToString()),)


@dataclass
class Registry:
    """An agent that someone else changes between the first reads and writes of it."""

    rivals: list[dict[str, str]]
    labels: dict[str, str] = field(default_factory=dict)
    version: int = 1

    def GetAgent(self, request: GetAgentRequest) -> GetAgentResponse:
        read = GetAgentResponse(agent=Agent(name=request.name, labels=self.labels, etag=f"v{self.version}"))
        if self.rivals:
            self.labels |= self.rivals.pop(0)
            self.version += 1
        return read

    def UpdateAgent(self, request: UpdateAgentRequest) -> UpdateAgentResponse:
        if request.agent.etag != f"v{self.version}":
            raise Refused(grpc.StatusCode.ABORTED)
        for path in request.update_mask.paths:
            key = path.removeprefix("labels.")
            if key in request.agent.labels:
                self.labels[key] = request.agent.labels[key]
            else:
                self.labels.pop(key, None)
        return UpdateAgentResponse(agent=Agent(labels=self.labels))


def client(**services: object) -> Any:
    return SimpleNamespace(**services)


def test_labels_are_tried_again_and_what_others_set_is_kept() -> None:
    registry = Registry([{"rack": "r1"}, {"owner": "ops"}], {"old": "x"})
    changed = relabel(client(agents=registry), "agents/a", {"env": "prod"}, {"old"}, overwrite=False)
    assert dict(changed.labels) == {"env": "prod", "rack": "r1", "owner": "ops"}


def test_a_value_that_someone_else_set_meanwhile_is_not_overwritten() -> None:
    registry = Registry([{"env": "test"}])
    with pytest.raises(CommandFailed, match="env is 'test' already"):
        relabel(client(agents=registry), "agents/a", {"env": "prod"}, set(), overwrite=False)
    assert registry.labels == {"env": "test"}


def test_labels_are_given_up_where_others_never_rest() -> None:
    registry = Registry([{"n": str(number)} for number in range(ETAG_TRIES)])
    with pytest.raises(grpc.RpcError):
        relabel(client(agents=registry), "agents/a", {"env": "prod"}, set(), overwrite=False)
    assert "env" not in registry.labels


@dataclass
class Issuer:
    """Signs, while someone else makes the folder that was meant for it."""

    taken: Path
    revoking: grpc.StatusCode | None = None
    revoked: list[str] = field(default_factory=list)

    def IssueIdentity(self, request: IssueIdentityRequest) -> IssueIdentityResponse:
        self.taken.mkdir()
        (self.taken / "precious").write_text("kept")
        return IssueIdentityResponse(identity=Identity(name="identities/ab"), certificate=b"c", root=b"r")

    def RevokeIdentity(self, request: RevokeIdentityRequest) -> None:
        if self.revoking is not None:
            raise Refused(self.revoking)
        self.revoked.append(request.name)


def test_a_certificate_whose_folder_was_taken_meanwhile_is_revoked(tmp_path: Path) -> None:
    issuer = Issuer(tmp_path / "ada")
    with (
        pytest.raises(CommandFailed, match="is revoked again"),
        UnsignedIdentity(tmp_path / "ada", "ada") as unsigned,
    ):
        signed(client(identities=issuer), unsigned, IssueIdentityRequest())
    assert issuer.revoked == ["identities/ab"]
    assert [path.name for path in tmp_path.rglob("*")] == ["ada", "precious"]


def test_a_certificate_that_cannot_be_revoked_is_named(tmp_path: Path) -> None:
    issuer = Issuer(tmp_path / "ada", grpc.StatusCode.UNAVAILABLE)
    with (
        pytest.raises(CommandFailed, match="identities/ab was issued and is of no use: revoke it"),
        UnsignedIdentity(tmp_path / "ada", "ada") as unsigned,
    ):
        signed(client(identities=issuer), unsigned, IssueIdentityRequest())


@dataclass
class Tasks:
    """Tasks and batches; cancelling some of them is refused."""

    refused: dict[str, Refused]
    asked: list[str] = field(default_factory=list)

    def CancelTask(self, request: CancelTaskRequest) -> CancelTaskResponse:
        self.ask(request.name)
        return CancelTaskResponse(task=Task(name=request.name))

    def CancelTaskBatch(self, request: CancelTaskBatchRequest) -> CancelTaskBatchResponse:
        self.ask(request.name)
        return CancelTaskBatchResponse(batch=TaskBatch(name=request.name))

    def ask(self, name: str) -> None:
        self.asked.append(name)
        if name in self.refused:
            raise self.refused[name]


NAMES = ["taskBatches/a", "tasks/b", "taskBatches/c", "tasks/d"]


def test_what_cannot_be_cancelled_does_not_keep_the_rest() -> None:
    tasks = Tasks({"tasks/b": Refused(grpc.StatusCode.FAILED_PRECONDITION, "TASK_FINAL")})
    done = cancel_all(client(tasks=tasks), Output(), NAMES)
    assert [one.batch.name for one in done.batches] == ["taskBatches/a", "taskBatches/c"]
    assert ([task.name for task in done.tasks], len(done.failed)) == (["tasks/d"], 1)


def test_a_server_that_does_not_answer_is_asked_for_nothing_more() -> None:
    tasks = Tasks({"tasks/b": Refused(grpc.StatusCode.UNAVAILABLE)})
    done = cancel_all(client(tasks=tasks), Output(), NAMES)
    assert (done.tasks, len(done.batches), len(done.failed)) == ([], 1, 1)
    assert tasks.asked == NAMES[:2]
