"""``fleetwright packages``: what is there, what is wrong with it, out of the factory, and to agents."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from fleetwright.v1 import packaging_service_pb2 as pb
from fleetwright.v1 import task_service_pb2, work_pb2
from fleetwright.v1.agent_registry_service_pb2 import CHANGE_TYPE_EXISTING, CHANGE_TYPE_SYNCED

from tests.integration.cli.command import Command
from tests.integration.cli.factory import Factory, Refusal, sha

CONTENT = os.urandom(300_000)
"""Of a package, in several pieces."""

CURL = f"packages/{sha(CONTENT)}"
OLD = f"packages/{sha(b'old')}"
SBOM = b'{"payload": "..."}'


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def package(name: str, version: str, decision: str = "PASS", **fields: Any) -> Any:
    return pb.Package(
        name=name,
        package_name="curl",
        version=version,
        target_platform="linux/amd64",
        decision=pb.PolicyDecision.Value(f"POLICY_DECISION_{decision}"),
        **fields,
    )


@pytest.fixture(autouse=True)
def store(factory: Factory) -> None:
    """curl 8.1, which is released, and 8.0, which is not any more."""
    factory.packages = [
        package(
            CURL,
            "8.1",
            channel="stable",
            target_path="stable/curl/8.1/curl_8.1_amd64.deb",
            size_bytes=len(CONTENT),
            vulnerabilities=pb.VulnerabilityCounts(low=1),
            component_count=3,
            file_count=8,
            claimed_file_count=6,
            attestations={"sbom": sha(SBOM), "scan": sha(b"scan")},
            installed_count=1_200,
        ),
        package(OLD, "8.0", "FAIL", decision_reasons=["critical: CVE-2029-1", "unknown: CVE-2029-7"]),
    ]
    factory.parts = {"package": CONTENT, "sbom": SBOM, "bundle": b"PK" + CONTENT}


async def test_packages_are_listed_with_what_is_known_of_them(packager: Command, factory: Factory) -> None:
    ended = await packager("packages", "list", "--name", "curl", "--decision", "pass", "--decision", "fail")
    assert ended.lines[0].split()[:4] == ["PACKAGE", "PLATFORM", "CHANNEL", "DECISION"]
    assert [word in ended.lines[1] for word in ("curl@8.1", "stable", "PASS", "1 low", "1,200")] == [True] * 5
    assert [asked.filter for asked in factory.of(pb.ListPackagesRequest)] == [
        'package_name = "curl" AND decision = (PASS OR FAIL)'
    ]


@pytest.mark.parametrize("name", ["curl@8.1", CURL, CURL.removeprefix("packages/"), f"sha256:{CURL[9:]}"])
async def test_a_package_is_shown_by_its_name_or_its_digest(packager: Command, name: str) -> None:
    ended = await packager("packages", "show", name)
    assert ended.lines[0].split() == ["Name:", CURL]
    assert "Files:           6 of 8 are of a known component (75 %)" in ended.lines
    assert "Attestations:    sbom, scan" in ended.lines


async def test_a_package_that_is_not_released_says_so_with_its_reasons(packager: Command) -> None:
    ended = await packager("packages", "show", "curl@8.0")
    assert "Because:         critical: CVE-2029-1" in ended.lines
    assert "Because:         unknown: CVE-2029-7" in ended.lines
    assert "Channel:         in none: no agent can have it" in ended.lines


async def test_a_name_of_several_packages_chooses_none_of_them(packager: Command) -> None:
    ended = await packager("packages", "show", "curl")
    assert (ended.status, ended.out) == (2, "")
    assert ended.errors.splitlines() == [
        "error: curl: several packages are called so: name one with its version, or by packages/SHA256",
        f"  curl@8.1  linux/amd64  PASS  {CURL}",
        f"  curl@8.0  linux/amd64  FAIL  {OLD}",
    ]


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("wget", 3, "wget: there is no such package"),
        ("curl@9", 3, "curl@9: there is no such package"),
        ("packages/abc", 2, "64 hexadecimal digits"),
        ("pipelines/none", 3, "there is no pipelines/none"),
        (f"packages/{'0' * 64}", 3, "there is no packages/"),
    ],
)
async def test_a_package_that_there_is_not_is_not_found(
    packager: Command, name: str, status: int, said: str
) -> None:
    ended = await packager("packages", "findings" if "pipelines" in name else "show", name)
    assert (ended.status, ended.out) == (status, "")
    assert said in ended.errors


async def test_the_package_of_a_pipeline_is_meant_by_the_pipeline(
    packager: Command, factory: Factory
) -> None:
    factory.pipelines["pipelines/p1"] = pb.Pipeline(name="pipelines/p1")
    ended = await packager("packages", "findings", "pipelines/p1")
    assert (ended.status, "has made no package yet" in ended.errors) == (3, True)
    factory.pipelines["pipelines/p1"].package = CURL
    assert (await packager("packages", "findings", "pipelines/p1")).status == 0
    assert [asked.package for asked in factory.of(pb.ListFindingsRequest)] == [CURL]


async def test_findings_say_what_fixes_them_and_what_covers_them(packager: Command, factory: Factory) -> None:
    factory.findings = [
        pb.Finding(
            vulnerability="CVE-2029-1",
            aliases=["CVE-2029-1", "GHSA-1"],
            severity="critical",
            component="pkg:deb/debian/zlib@1",
            fixed_version="1.1",
            state="affected",
            exception="exceptions/e1",
            score=9.8,
            matched="introduced 0, fixed 1.1 of DSA-1",
        )
    ]
    ended = await packager("packages", "findings", "curl@8.1")
    assert ended.lines[1].split()[:4] == ["CVE-2029-1", "critical", "pkg:deb/debian/zlib@1", "1.1"]
    assert ended.lines[1].endswith("affected, exceptions/e1")
    wide = await packager("packages", "findings", "curl@8.1", "-o", "wide")
    assert "9.8" in wide.out
    assert "introduced 0, fixed 1.1 of DSA-1" in wide.out
    assert "GHSA-1" in wide.out


@pytest.mark.parametrize("words", [("findings", "curl@8.1"), ("log", "p1"), ("watch", "p1")])
async def test_what_has_no_name_is_not_printed_by_name(packager: Command, words: Sequence[str]) -> None:
    ended = await packager("packages", *words, "-o", "name")
    assert (ended.status, ended.out) == (2, "")
    assert "no names" in ended.errors


async def test_names_of_packages_are_offered_on_tab(packager: Command, factory: Factory) -> None:
    line = "fleetwright packages show cu"
    asked = packager.having(_FLEETWRIGHT_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD="3")
    ended = await asked()
    assert (ended.status, ended.lines, ended.errors) == (0, ["curl"], "")
    assert [one.filter for one in factory.of(pb.ListPackagesRequest)] == ['package_name = "cu*"']


# Out of the factory


async def test_a_package_is_downloaded_under_the_name_of_its_file(
    packager: Command, factory: Factory, home: Path
) -> None:
    ended = await packager("packages", "download", "curl@8.1")
    assert (ended.status, ended.out) == (0, f"curl_8.1_amd64.deb: {CURL}, 293.0 KiB\n")
    assert (home / "curl_8.1_amd64.deb").read_bytes() == CONTENT
    assert names(home) == ["curl_8.1_amd64.deb"]


async def test_a_download_that_is_cut_off_goes_on_by_itself(
    packager: Command, factory: Factory, home: Path
) -> None:
    factory.cuts = [65_536, 196_608]
    ended = await packager("packages", "download", "curl@8.1", "--out", "curl.deb", "-o", "json")
    assert ended.document == {
        "file": "curl.deb",
        "package": CURL,
        "part": "package",
        "sizeBytes": len(CONTENT),
        "sha256": sha(CONTENT),
    }
    assert (home / "curl.deb").read_bytes() == CONTENT
    assert factory.offsets == [0, 65_536, 196_608]


async def test_a_download_that_was_ended_goes_on_with_the_same_command(
    packager: Command, factory: Factory, home: Path
) -> None:
    (home / "curl.deb.part").write_bytes(CONTENT[:100_000])
    ended = await packager("packages", "download", "curl@8.1", "--out", "curl.deb")
    assert ended.status == 0
    assert factory.offsets == [100_000]
    assert (home / "curl.deb").read_bytes() == CONTENT


@pytest.mark.parametrize("left", [b"something else", CONTENT + b"and more"])
async def test_what_an_earlier_command_left_of_something_else_is_thrown_away(
    packager: Command, factory: Factory, home: Path, left: bytes
) -> None:
    (home / "curl.deb.part").write_bytes(left)
    ended = await packager("packages", "download", "curl@8.1", "--out", "curl.deb")
    assert ended.status == 0
    assert factory.offsets == [len(left), 0]
    assert (home / "curl.deb").read_bytes() == CONTENT


async def test_what_is_whole_already_is_not_asked_for_again(
    packager: Command, factory: Factory, home: Path
) -> None:
    (home / "curl.deb.part").write_bytes(CONTENT)
    assert (await packager("packages", "download", "curl@8.1", "--out", "curl.deb")).status == 0
    assert factory.offsets == []


async def test_bytes_that_were_swapped_are_not_kept(packager: Command, factory: Factory, home: Path) -> None:
    factory.parts["package"] = CONTENT[:-1] + b"?"
    ended = await packager("packages", "download", "curl@8.1", "--out", "curl.deb")
    assert (ended.status, ended.out) == (1, "")
    assert "not what its digest says: do not use it" in ended.errors
    assert names(home) == []


async def test_a_download_overwrites_nothing(packager: Command, factory: Factory, home: Path) -> None:
    (home / "precious").write_text("precious")
    (home / "curl.deb.part").symlink_to("precious")
    (home / "curl.deb").symlink_to("nowhere")
    ended = await packager("packages", "download", "curl@8.1", "--out", "precious")
    assert (ended.status, "precious: exists already" in ended.errors) == (1, True)
    assert (await packager("packages", "download", "curl@8.1", "--out", "curl.deb")).status == 1
    (home / "curl.deb").unlink()
    assert (await packager("packages", "download", "curl@8.1", "--out", "curl.deb")).status == 1
    assert (home / "precious").read_text() == "precious"


async def test_a_server_does_not_choose_where_a_file_is_written(
    packager: Command, factory: Factory, home: Path
) -> None:
    factory.packages[0].target_path = "stable/curl/.."
    await packager("packages", "download", "curl@8.1")
    factory.packages[0].target_path = ""
    factory.packages[0].package_name = "../curl"
    await packager("packages", "download", CURL)
    assert names(home) == ["curl-8.1", "package"]
    assert all((home / name).read_bytes() == CONTENT for name in names(home))


async def test_an_attestation_is_downloaded_by_its_kind(
    packager: Command, factory: Factory, home: Path
) -> None:
    ended = await packager("packages", "download", "curl@8.1", "--part", "sbom", "-o", "name")
    assert (home / ended.out.strip()).read_bytes() == SBOM
    refused = await packager("packages", "download", "curl@8.1", "--part", "poem")
    assert refused.status == 3
    assert "has package, sbom, scan" in refused.errors


async def test_a_bundle_that_is_cut_off_is_begun_again(
    packager: Command, factory: Factory, home: Path
) -> None:
    factory.cuts = [131_072]
    ended = await packager("packages", "export", "curl@8.1", "--out", "curl.zip")
    assert ended.status == 0
    assert (home / "curl.zip").read_bytes() == b"PK" + CONTENT
    assert factory.offsets == [0, 0]


async def test_a_bundle_of_a_package_that_is_not_released_is_refused(
    packager: Command, factory: Factory, home: Path
) -> None:
    said = "it is not released: policy refuses it"
    factory.refusals["ExportBundle"] = [
        Refusal(grpc.StatusCode.FAILED_PRECONDITION, "PACKAGE_NOT_RELEASED", said)
    ]
    ended = await packager("packages", "export", "curl@8.0")
    assert (ended.status, ended.errors) == (1, f"error: {said}\n")
    assert names(home) == []


# To agents


def a_batch(states: dict[str, int]) -> Any:
    batch = task_service_pb2.TaskBatch(
        name="taskBatches/b1",
        state=task_service_pb2.TASK_BATCH_STATE_EXPANDED,
        task_count=sum(states.values()),
    )
    for state, count in states.items():
        number = task_service_pb2.TaskState.Value(f"TASK_STATE_{state}")
        batch.state_counts.add(state=number, count=count)
    return batch


def ended_tasks(states: dict[str, int]) -> list[Any]:
    """Return a watch of tasks that have ended in these states."""
    names = [state for state, count in states.items() for _ in range(count)]
    changes = [
        task_service_pb2.WatchTasksResponse(
            change_type=CHANGE_TYPE_EXISTING,
            task=task_service_pb2.Task(
                name=f"tasks/t{number}", state=task_service_pb2.TaskState.Value(f"TASK_STATE_{name}")
            ),
        )
        for number, name in enumerate(names)
    ]
    return [*changes, task_service_pb2.WatchTasksResponse(change_type=CHANGE_TYPE_SYNCED)]


async def test_the_one_released_package_of_a_name_is_deployed(packager: Command, factory: Factory) -> None:
    factory.batch = a_batch({"QUEUED": 3})
    ended = await packager(
        *("packages", "deploy", "curl", "--to", "groups:canary", "--percent", "10", "--seed", "7"),
        *("--window", "0 2 * * SAT", "--max-attempts", "3", "--request-id", "r1"),
    )
    assert (ended.status, ended.out) == (0, "taskBatches/b1\n")
    assert ended.errors == "3 tasks: 3 QUEUED\n"
    [asked] = factory.of(pb.DeployPackageRequest)
    assert (asked.package, asked.selector, asked.percentage, asked.seed) == (CURL, "groups:canary", 10, 7)
    assert (asked.options.window.cron, asked.options.max_attempts) == ("0 2 * * SAT", 3)
    assert asked.request_id == "r1"


async def test_a_refused_package_is_not_deployed(packager: Command, factory: Factory) -> None:
    ended = await packager("packages", "deploy", "curl@8.0", "--to", "*")
    assert ended.status == 1
    assert ended.errors.splitlines() == [
        "error: curl@8.0: no agent can have it: FAIL: critical: CVE-2029-1; unknown: CVE-2029-7",
        f"See `fleetwright packages show {OLD}`.",
    ]
    assert factory.of(pb.DeployPackageRequest) == []


async def test_two_released_packages_of_a_name_are_not_chosen_among(
    packager: Command, factory: Factory
) -> None:
    factory.packages[1].channel = "beta"
    ended = await packager("packages", "deploy", "curl", "--to", "*")
    assert (ended.status, ended.out) == (2, "")
    assert "curl@8.0" in ended.errors
    assert factory.of(pb.DeployPackageRequest) == []


async def test_a_deployment_is_waited_for_and_tells_what_went_wrong(
    packager: Command, factory: Factory
) -> None:
    states = {"SUCCEEDED": 2, "FAILED": 1}
    factory.batch, factory.tasks = a_batch(states), ended_tasks(states)
    factory.deployments = [
        pb.Deployment(agent="agents/web-1", status=work_pb2.DEPLOYMENT_STATUS_INSTALLED),
        pb.Deployment(agent="agents/web-2", status=work_pb2.DEPLOYMENT_STATUS_INSTALLED),
        pb.Deployment(
            agent="agents/db-1",
            status=work_pb2.DEPLOYMENT_STATUS_ROLLED_BACK,
            reason_code="NOT_DETECTED",
            reason="curl --version ended with 127",
        ),
    ]
    ended = await packager("packages", "deploy", "curl", "--to", "*", "--wait")
    assert (ended.status, ended.out) == (1, "taskBatches/b1\n")
    assert ended.errors.splitlines() == [
        "3 tasks: 2 SUCCEEDED, 1 FAILED",
        "2 INSTALLED, 1 ROLLED_BACK",
        "  agents/db-1: ROLLED_BACK: NOT_DETECTED: curl --version ended with 127",
        "error: not all succeeded: 1 FAILED",
    ]
    assert factory.of(pb.ListDeploymentsRequest)[0].filter == 'batch_id = "b1"'


async def test_a_deployment_that_succeeds_everywhere_is_a_success(
    packager: Command, factory: Factory
) -> None:
    states = {"SUCCEEDED": 2}
    factory.batch, factory.tasks = a_batch(states), ended_tasks(states)
    ended = await packager("packages", "deploy", "curl", "--to", "*", "--wait", "-o", "json")
    assert (ended.status, ended.errors) == (0, "")
    assert ended.document["taskCount"] == 2


async def test_deployments_are_chosen_by_options(packager: Command, factory: Factory) -> None:
    factory.deployments = [
        pb.Deployment(
            name="deployments/d1",
            agent="agents/web-1",
            package=CURL,
            package_name="curl",
            version="8.1",
            status=work_pb2.DEPLOYMENT_STATUS_FAILED,
            reason_code="METADATA_EXPIRED",
            reason="timestamp.json ended",
        )
    ]
    ended = await packager(
        *("packages", "deployments", "--package", "curl@8.1", "--agent", "web-1", "--status", "failed"),
        *("--status", "rolled-back", "--batch", "taskBatches/b1", "--latest"),
    )
    assert ended.lines[1].split()[:3] == ["web-1", "curl@8.1", "FAILED"]
    assert ended.lines[1].endswith("METADATA_EXPIRED: timestamp.json ended")
    [asked] = factory.of(pb.ListDeploymentsRequest)
    assert asked.filter == (
        f'package = "{sha(CONTENT)}" AND agent_id = "web-1" AND status = (FAILED OR ROLLED_BACK) '
        'AND batch_id = "b1" AND latest = true'
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("deploy", "curl", "--to", "*", "--seed", "1"), "--seed says which agents"),
        (("deploy", "curl"), "--to"),
        (("deploy", "curl", "--to", "*", "--if-offline", "latest"), "--supersede-key"),
        (("deployments", "--status", "LOST"), "--status 'LOST'"),
        (("list", "--decision", "maybe"), "--decision 'maybe': choose one of PASS, FAIL, EXCEPTION"),
        (("watch", "p1", "--state", "RUNNING"), "leave PIPELINE out"),
        (("exceptions", "create", "curl@8.1", "CVE-1", "--reason", "x", "--for", "long"), "--for: 'long'"),
    ],
)
async def test_options_that_do_not_fit_are_told_before_anything_is_asked(
    packager: Command, factory: Factory, words: Sequence[str], said: str
) -> None:
    ended = await packager("packages", *words)
    assert (ended.status, ended.out) == (2, "")
    assert said in ended.errors
    assert factory.asked == []


async def test_an_exception_is_asked_for_approved_and_revoked(packager: Command, factory: Factory) -> None:
    made = await packager(
        *("packages", "exceptions", "create", "curl@8.1", "CVE-2029-1", "--for", "30d"),
        *("--reason", "no network here"),
    )
    assert made.lines[:2] == ["Name:          exceptions/e1", "State:         WAITING"]
    [asked] = factory.of(pb.CreateExceptionRequest)
    assert (asked.package, asked.vulnerability, asked.justification) == (
        CURL,
        "CVE-2029-1",
        "no network here",
    )
    assert asked.valid_for.ToTimedelta().days == 30
    approved = await packager("packages", "exceptions", "approve", "e1")
    assert "State:         APPROVED" in approved.lines
    listed = await packager("packages", "exceptions", "list", "--package", "curl@8.1")
    assert [word in listed.lines[1] for word in ("APPROVED", "admin", "ada", "no network here")] == [True] * 4
    assert factory.of(pb.ListExceptionsRequest)[0].filter == f'package = "{sha(CONTENT)}"'
    revoked = await packager("packages", "exceptions", "revoke", "exceptions/e1", "-o", "json")
    assert revoked.document["revokeTime"]
    assert "REVOKED" in (await packager("packages", "exceptions", "list")).out


async def test_who_asked_for_an_exception_cannot_approve_it(packager: Command, factory: Factory) -> None:
    said = "you asked for exceptions/e1: somebody else has to approve it"
    factory.refusals["ApproveException"] = [
        Refusal(grpc.StatusCode.PERMISSION_DENIED, "APPROVER_IS_REQUESTER", said)
    ]
    ended = await packager("packages", "exceptions", "approve", "e1", "-o", "json")
    assert ended.status == 4
    error = json.loads(ended.errors)["error"]
    assert (error["reason"], error["message"]) == ("APPROVER_IS_REQUESTER", said)


async def test_a_server_without_keys_says_what_to_do(packager: Command, factory: Factory) -> None:
    said = "the keys that release packages are not set up: run `fleetwright trust init`"
    factory.refusals["DeployPackage"] = [
        Refusal(grpc.StatusCode.FAILED_PRECONDITION, "TRUST_NOT_SET_UP", said)
    ]
    ended = await packager("packages", "deploy", "curl", "--to", "*")
    assert (ended.status, ended.errors) == (1, f"error: {said}\n")
