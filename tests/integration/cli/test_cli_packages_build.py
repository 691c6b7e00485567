"""``fleetwright packages build`` and what follows a pipeline: its log live, its end as an exit status."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from fleetwright.v1 import packaging_service_pb2 as pb

from tests.integration.cli.command import Command
from tests.integration.cli.factory import Factory, sha
from tests.integration.cli.refusals import Refusal

CONTENT = b"the bytes of an artefact"
DIGEST = sha(CONTENT)
PACKAGE = f"packages/{sha(b'package')}"
WORDS = (
    (pb.STAGE_INTAKE, "info", "a deb, by its content"),
    (pb.STAGE_SBOM, "warning", "1 file of no component"),
    (pb.STAGE_STORE, "info", "stored"),
)


@pytest.fixture
def artefact(home: Path) -> str:
    """An artefact in the folder of who types."""
    (home / "curl.deb").write_bytes(CONTENT)
    return "curl.deb"


@pytest.fixture(autouse=True)
def log(factory: Factory) -> None:
    """Three lines of a log."""
    for number, (stage, level, text) in enumerate(WORDS, start=1):
        line = pb.PipelineLogLine(number=number, stage=stage, level=level, text=text)
        line.time.FromJsonString("2026-11-24T08:00:00Z")
        factory.lines.append(line)


def ending(state: str, decision: str = "", reason: str = "", **counts: int) -> Callable[[Any], None]:
    """Return what makes a pipeline end so."""

    def end(pipeline: Any) -> None:
        pipeline.state = pb.PipelineState.Value(f"PIPELINE_STATE_{state}")
        pipeline.reason, pipeline.package = reason, PACKAGE
        pipeline.package_name, pipeline.package_version = "curl", "8.1"
        if decision:
            pipeline.decision = pb.PolicyDecision.Value(f"POLICY_DECISION_{decision}")
            pipeline.vulnerabilities.CopyFrom(pb.VulnerabilityCounts(**counts))

    return end


async def test_a_file_is_uploaded_and_a_pipeline_created_for_it(
    packager: Command, factory: Factory, artefact: str, home: Path
) -> None:
    (home / "manifest.json").write_text('{"detect": "curl --version"}', encoding="utf-8")
    (home / "vex.json").write_text('{"statements": []}', encoding="utf-8")
    ended = await packager(
        *("packages", "build", artefact, "--platform", "linux/amd64", "--channel", "beta"),
        *("--build-id", "77", "--repository", "https://example.org/curl", "--commit", "abc"),
        *("--manifest", "manifest.json", "--vex", "vex.json", "--request-id", "r1"),
    )
    assert (ended.status, ended.out, ended.errors) == (0, "pipelines/p1\n", "")
    [asked] = factory.of(pb.CreatePipelineRequest)
    assert asked == pb.CreatePipelineRequest(
        artefact=f"artefacts/{DIGEST}",
        target_platform="linux/amd64",
        channel="beta",
        build_id="77",
        source_repository="https://example.org/curl",
        source_commit="abc",
        manifest='{"detect": "curl --version"}',
        vex='{"statements": []}',
        request_id="r1",
    )


async def test_an_artefact_that_is_there_is_named_by_its_digest(packager: Command, factory: Factory) -> None:
    ended = await packager("packages", "build", f"artefacts/{DIGEST}", "--on-demand", "-o", "json")
    assert (ended.document["name"], ended.document["state"]) == ("pipelines/p1", "PIPELINE_STATE_CREATED")
    assert factory.uploads == {}


async def test_a_pipeline_is_followed_to_its_end(packager: Command, factory: Factory, artefact: str) -> None:
    factory.ends = ending("PASSED", "PASS", medium=2, low=1)
    ended = await packager("packages", "build", artefact, "--wait")
    assert ended.status == 0
    assert ended.errors.splitlines() == [
        "08:00:00Z  INTAKE  a deb, by its content",
        "08:00:00Z  SBOM    warning: 1 file of no component",
        "08:00:00Z  STORE   stored",
    ]
    assert ended.lines[:3] == [
        "Name:            pipelines/p1",
        "State:           PASSED",
        "Package:         curl@8.1",
    ]
    assert ended.lines[-1] == "Vulnerabilities: 2 medium, 1 low"


async def test_a_refused_package_is_a_failure_that_says_where_to_look(
    packager: Command, factory: Factory, artefact: str
) -> None:
    factory.ends = ending("REFUSED", "FAIL", critical=1)
    factory.packages = [pb.Package(name=PACKAGE, decision_reasons=["rule critical: CVE-2029-1"])]
    ended = await packager("packages", "build", artefact, "--wait")
    assert ended.status == 1
    assert "Decision:        FAIL" in ended.out
    assert "error: pipelines/p1 (curl.deb) is REFUSED: rule critical: CVE-2029-1" in ended.errors
    assert f"fleetwright packages findings {PACKAGE}" in ended.errors


async def test_a_pipeline_with_an_exception_is_released(
    packager: Command, factory: Factory, artefact: str
) -> None:
    factory.ends = ending("EXCEPTED", "EXCEPTION", critical=1)
    ended = await packager("packages", "build", artefact, "--wait", "-o", "json")
    assert (ended.status, ended.errors) == (0, "")
    assert ended.document["state"] == "PIPELINE_STATE_EXCEPTED"


async def test_a_stage_that_failed_names_the_way_to_retry(
    packager: Command, factory: Factory, artefact: str
) -> None:
    factory.ends = ending("ERROR", reason="SCAN: STALE: advisories of PyPI are 40 days old")
    ended = await packager("packages", "build", artefact, "--wait")
    assert ended.status == 1
    assert "SCAN: STALE: advisories of PyPI are 40 days old" in ended.errors
    assert "fleetwright packages retry pipelines/p1" in ended.errors


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "manifest.json, line 1, column 2: no JSON"),
        (b"[]", "manifest.json: is no JSON object"),
        (b"\xff", "manifest.json: not UTF-8 text (byte 0)"),
        (b"{" + b" " * 300_000 + b"}", "manifest.json: more than 262,144 bytes"),
        (b"[" * 100_000, "--manifest manifest.json"),
    ],
)
async def test_a_manifest_that_is_none_is_told_before_anything_is_sent(
    packager: Command, factory: Factory, artefact: str, home: Path, content: bytes, said: str
) -> None:
    (home / "manifest.json").write_bytes(content)
    ended = await packager("packages", "build", artefact, "--manifest", "manifest.json")
    assert (ended.status, ended.out) == (2, "")
    assert said in ended.errors
    assert factory.asked == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--on-demand", "--wait"), "--on-demand and --wait"),
        (("--name", "x"), "--name is of a file"),
    ],
)
async def test_options_that_do_not_fit_are_wrong_usage(
    packager: Command, factory: Factory, words: tuple[str, ...], said: str
) -> None:
    ended = await packager("packages", "build", f"artefacts/{DIGEST}", *words)
    assert ended.status == 2
    assert said in ended.errors
    assert factory.asked == []


async def test_a_digest_that_is_none_is_not_taken_for_a_file(packager: Command, factory: Factory) -> None:
    ended = await packager("packages", "build", "artefacts/abc")
    assert ended.status == 2
    assert "64 hexadecimal digits" in ended.errors


async def test_a_log_that_is_cut_off_goes_on_after_its_last_line(
    packager: Command, factory: Factory, artefact: str
) -> None:
    factory.ends = ending("PASSED", "PASS")
    await packager("packages", "build", artefact)
    factory.cuts = [2]
    ended = await packager("packages", "watch", "pipelines/p1")
    assert ended.status == 0
    assert [line.split(None, 2)[2] for line in ended.lines] == [
        "a deb, by its content",
        "warning: 1 file of no component",
        "stored",
    ]
    assert [asked.after_line for asked in factory.of(pb.WatchPipelineLogRequest)] == [0, 2]
    assert "connection lost" in ended.errors
    assert f"pipelines/p1 is PASSED: {PACKAGE}" in ended.errors


async def test_a_log_that_ends_before_its_pipeline_is_asked_for_more(
    packager: Command, factory: Factory, artefact: str
) -> None:
    ends = iter([lambda pipeline: None, ending("PASSED", "PASS")])
    factory.ends = lambda pipeline: next(ends)(pipeline)
    await packager("packages", "build", artefact)
    ended = await packager("packages", "watch", "p1")
    assert (ended.status, len(ended.lines)) == (0, 3)
    assert [asked.after_line for asked in factory.of(pb.WatchPipelineLogRequest)] == [0, 3]


async def test_programs_get_each_line_of_a_log_as_an_object(
    packager: Command, factory: Factory, artefact: str
) -> None:
    factory.ends = ending("REFUSED", "FAIL")
    await packager("packages", "build", artefact)
    ended = await packager("packages", "watch", "pipelines/p1", "-o", "json")
    assert ended.status == 1
    assert [json.loads(line)["number"] for line in ended.lines] == ["1", "2", "3"]
    error = json.loads(ended.errors)["error"]
    assert (error["exitStatus"], error["metadata"]["state"]) == (1, "REFUSED")


async def test_a_pipeline_that_waits_to_be_started_says_so(packager: Command, factory: Factory) -> None:
    await packager("packages", "build", f"artefacts/{DIGEST}", "--on-demand")
    factory.ends = ending("CANCELLED")
    ended = await packager("packages", "watch", "p1")
    assert ended.status == 1
    assert "pipelines/p1 waits for `fleetwright packages execute pipelines/p1`" in ended.errors


async def test_ctrl_c_leaves_the_pipeline_and_names_it(
    packager: Command, factory: Factory, artefact: str
) -> None:
    running = await packager.start("packages", "build", artefact, "--wait")
    for _ in range(4):
        note = await running.note()
    assert "connection lost" in note  # the log is over and the pipeline is not: it waits to ask again
    ended = await running.interrupt()
    assert ended.status == 130
    assert "pipelines/p1 goes on: `fleetwright packages watch pipelines/p1` follows it" in ended.errors


async def test_the_log_of_some_stages_is_printed(packager: Command, factory: Factory) -> None:
    await packager("packages", "build", f"artefacts/{DIGEST}")
    ended = await packager("packages", "log", "p1", "--stage", "intake", "--stage", "STORE")
    assert ended.lines == ["08:00:00Z  INTAKE  a deb, by its content", "08:00:00Z  STORE   stored"]
    refused = await packager("packages", "log", "p1", "--stage", "PAINT")
    assert (refused.status, "choose one of INTAKE, BUILD" in refused.errors) == (2, True)


async def test_a_log_is_followed_to_any_end(packager: Command, factory: Factory) -> None:
    await packager("packages", "build", f"artefacts/{DIGEST}")
    factory.ends = ending("REFUSED", "FAIL")
    ended = await packager("packages", "log", "p1", "--follow")
    assert (ended.status, len(ended.lines)) == (0, 3)


async def test_what_acts_on_a_terminal_is_not_printed_of_a_log(packager: Command, factory: Factory) -> None:
    factory.lines[0].text = "\x1b]0;owned\x07"
    await packager("packages", "build", f"artefacts/{DIGEST}")
    ended = await packager("packages", "log", "p1")
    assert "\x1b" not in ended.out


async def test_an_unknown_pipeline_is_not_found(packager: Command) -> None:
    for verb in ("show", "log", "watch", "execute", "retry", "cancel"):
        ended = await packager("packages", verb, "pipelines/none")
        assert (verb, ended.status, ended.out) == (verb, 3, "")
        assert "there is no pipelines/none" in ended.errors


async def test_a_pipeline_is_started_retried_and_cancelled(packager: Command, factory: Factory) -> None:
    await packager("packages", "build", f"artefacts/{DIGEST}", "--on-demand")
    assert (await packager("packages", "execute", "p1")).out == "pipelines/p1 is QUEUED\n"
    assert (await packager("packages", "cancel", "p1")).out == "pipelines/p1 is CANCELLED\n"
    factory.ends = ending("PASSED", "PASS")
    retried = await packager("packages", "retry", "p1", "--wait", "-o", "name")
    assert (retried.status, retried.out) == (0, "pipelines/p1\n")


async def test_of_a_retry_only_what_is_new_is_told(packager: Command, factory: Factory) -> None:
    await packager("packages", "build", f"artefacts/{DIGEST}")
    factory.ends = ending("PASSED", "PASS")
    retried = await packager("packages", "retry", "p1", "--wait")
    assert (retried.status, retried.errors) == (0, "")
    assert factory.of(pb.WatchPipelineLogRequest)[-1].after_line == 3


async def test_a_pipeline_that_cannot_be_retried_says_why(packager: Command, factory: Factory) -> None:
    factory.refusals["RetryPipeline"] = [
        Refusal(grpc.StatusCode.FAILED_PRECONDITION, "PIPELINE_STATE", "it is PASSED; only ERROR is retried")
    ]
    ended = await packager("packages", "retry", "p1")
    assert (ended.status, ended.errors) == (1, "error: it is PASSED; only ERROR is retried\n")


async def test_pipelines_are_listed_by_state(packager: Command, factory: Factory, artefact: str) -> None:
    await packager("packages", "build", artefact)
    ending("REFUSED", "FAIL", critical=2, unknown=1)(factory.pipelines["pipelines/p1"])
    ended = await packager("packages", "pipelines", "--state", "refused", "--filter", "channel = beta")
    assert "REFUSED" in ended.lines[1]
    assert "2 critical, 1 unknown" in ended.lines[1]
    [asked] = factory.of(pb.ListPipelinesRequest)
    assert asked.filter == "channel = beta AND state = (REFUSED)"
    refused = await packager("packages", "pipelines", "--state", "LOST")
    assert "--state 'LOST': choose one of CREATED, QUEUED" in refused.errors


async def test_a_pipeline_is_shown_with_its_stages(packager: Command, factory: Factory) -> None:
    await packager("packages", "build", f"artefacts/{DIGEST}")
    pipeline = factory.pipelines["pipelines/p1"]
    ending("ERROR", reason="SCAN: no advisories")(pipeline)
    for stage, state, reason in ((5, 4, "no advisories"), (1, 3, "")):
        report = pipeline.stages.add(stage=stage, state=state, reason=reason, run_count=1)
        report.reason_code = "MISSING" if reason else ""
        report.start_time.FromSeconds(1_000)
        report.end_time.FromMilliseconds(1_002_500)
        report.isolation.update({"network": "held: none", "uid": "not root"})
    ended = await packager("packages", "show", "pipelines/p1")
    assert ended.lines[-2].split() == ["INTAKE", "SUCCEEDED", "2s", "1"]
    assert ended.lines[-1].endswith("MISSING: no advisories")
    wide = await packager("packages", "show", "pipelines/p1", "-o", "wide")
    assert "1 of 2 limits held; uid not root" in wide.out


async def test_all_pipelines_are_watched_and_a_lost_watch_goes_on(
    packager: Command, factory: Factory
) -> None:
    def pipeline(name: str, state: str) -> Any:
        return pb.Pipeline(name=name, state=pb.PipelineState.Value(f"PIPELINE_STATE_{state}"))

    factory.watched = [
        [],
        [pipeline("pipelines/a", "QUEUED"), pipeline("pipelines/b", "RUNNING")],
        [pipeline("pipelines/a", "RUNNING")],
    ]
    factory.cuts = [1, 2]
    ended = await packager("packages", "watch", "--state", "QUEUED", "--state", "RUNNING", "-o", "json")
    assert ended.status == 4  # as the script ends
    first, *seen = [json.loads(line) for line in ended.lines]
    assert first == {"pipeline": None, "resumeToken": "1"}
    assert [(one["pipeline"]["name"], one["resumeToken"]) for one in seen] == [
        ("pipelines/a", ""),
        ("pipelines/b", "2"),
        ("pipelines/a", "3"),
    ]
    assert [one.resume_token for one in factory.of(pb.WatchPipelinesRequest)] == ["", "1", "2"]
    assert factory.of(pb.WatchPipelinesRequest)[0].filter == "state = (QUEUED OR RUNNING)"


async def test_a_terminal_shows_the_stage_that_runs(
    packager: Command, factory: Factory, artefact: str
) -> None:
    factory.ends = ending("PASSED", "PASS")
    status, screen = await packager.on_a_terminal("packages", "build", artefact, "--wait")
    assert status == 0
    assert "of 7 stages" in screen
    assert "a deb, by its content" in screen
    assert "PASSED" in screen
