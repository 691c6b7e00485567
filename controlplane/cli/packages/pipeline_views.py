"""Pipelines, their stages and their logs as people read them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from fleetwright.v1.packaging_service_pb2 import (
    PIPELINE_STATE_CREATED,
    PIPELINE_STATE_ERROR,
    PIPELINE_STATE_REFUSED,
    Pipeline,
    PipelineLogLine,
    StageReport,
)
from rich.text import Text

from controlplane.cli.failures import CommandFailed
from controlplane.cli.output import Column, clean
from controlplane.cli.packages.words import (
    RELEASED,
    counts_words,
    decision_name,
    stage_name,
    stage_state_name,
    state_name,
    style,
)
from controlplane.cli.values import age, instant, shown_duration, shown_time

_LEVELS = {"warning": "yellow", "error": "red"}
_DIGEST_SHOWN = 12


def columns(now: datetime) -> list[Column[Any]]:
    """Return the columns of a list of pipelines."""
    return [
        Column("NAME", lambda pipeline: pipeline.name),
        Column("FILE", lambda pipeline: pipeline.file_name),
        Column("PACKAGE", package_words),
        Column("STATE", lambda pipeline: state_name(pipeline.state), style=style),
        Column("STAGE", lambda pipeline: stage_name(pipeline.stage)),
        Column("VULNERABILITIES", vulnerabilities_words),
        Column("AGE", lambda pipeline: age(pipeline, "create_time", now)),
        Column("SINCE", lambda pipeline: age(pipeline, "state_time", now), wide=True),
        Column("TYPE", lambda pipeline: pipeline.artefact_type, wide=True),
        Column("PLATFORM", lambda pipeline: pipeline.target_platform, wide=True),
        Column("CHANNEL", lambda pipeline: pipeline.channel, wide=True),
        Column("BUILD", lambda pipeline: pipeline.build_id, wide=True),
        Column("CREATOR", lambda pipeline: pipeline.creator.rpartition("/")[2], wide=True),
    ]


def details(now: datetime) -> list[Column[Any]]:
    """Return what ``packages show`` prints of one pipeline, a line each, above its stages."""
    return [
        *outcome(),
        Column("Since", lambda pipeline: _since(pipeline, now)),
        Column("Artefact", lambda pipeline: pipeline.artefact),
        Column("File", lambda pipeline: pipeline.file_name),
        Column("Type", lambda pipeline: pipeline.artefact_type),
        Column("Platform", lambda pipeline: pipeline.target_platform),
        Column("Channel", lambda pipeline: pipeline.channel),
        Column("Signatures", lambda pipeline: "; ".join(map(_signature, pipeline.signatures))),
        Column("Build", lambda pipeline: pipeline.build_id),
        Column("Source", _source),
        Column("Creator", lambda pipeline: pipeline.creator),
        Column("Created", lambda pipeline: shown_time(pipeline, "create_time")),
        Column("Runs", lambda pipeline: str(pipeline.run_count or "")),
    ]


def outcome() -> list[Column[Any]]:
    """Return the lines that say how a pipeline ended."""
    return [
        Column("Name", lambda pipeline: pipeline.name),
        Column("State", lambda pipeline: state_name(pipeline.state), style=style),
        Column("Reason", lambda pipeline: pipeline.reason),
        Column("Package", package_words),
        Column("Digest", lambda pipeline: pipeline.package),
        Column("Decision", lambda pipeline: decision_name(pipeline.decision), style=style),
        Column("Vulnerabilities", vulnerabilities_words),
    ]


def stage_columns() -> list[Column[Any]]:
    """Return the columns of a pipeline's stages."""
    return [
        Column("STAGE", lambda stage: stage_name(stage.stage)),
        Column("STATE", lambda stage: stage_state_name(stage.state), style=style),
        Column("TOOK", _took),
        Column("RUNS", lambda stage: str(stage.run_count or "")),
        Column("REASON", _reason),
        Column("TOOLS", lambda stage: _pairs(stage.tools), wide=True),
        Column("OUTPUTS", lambda stage: _digests(stage.outputs), wide=True),
        Column("ISOLATION", isolation_words, wide=True),
    ]


def package_words(pipeline: Pipeline) -> str:
    """Return name and version of what is made, as far as they are known."""
    version = f"@{pipeline.package_version}" if pipeline.package_version else ""
    return f"{pipeline.package_name}{version}"


def vulnerabilities_words(pipeline: Pipeline) -> str:
    """Return how many vulnerabilities were found; empty before the scan."""
    return counts_words(pipeline.vulnerabilities) if pipeline.HasField("vulnerabilities") else ""


def log_line(line: PipelineLogLine) -> Text:
    """Return a line of a log; what is no mere information says so, also without colours."""
    level = "" if line.level in {"", "info"} else f"{line.level}: "
    text = Text(f"{instant(line.time):%H:%M:%SZ}  {stage_name(line.stage):<6}  ", no_wrap=True)
    return text.append(clean(f"{level}{line.text}"), _LEVELS.get(line.level))


def must_be_released(pipeline: Pipeline, reasons: Sequence[str] = ()) -> None:
    """Raise ``CommandFailed`` unless agents can have what the pipeline made, with what to do about it.

    ``reasons`` are those of policy, where it refused the package.
    """
    if pipeline.state in RELEASED:
        return
    state = state_name(pipeline.state)
    told = "; ".join(filter(None, (pipeline.reason, *reasons)))
    codes = [stage.reason_code for stage in pipeline.stages if stage.reason_code]
    raise CommandFailed(
        f"{pipeline.name} ({pipeline.file_name}) is {state}" + (f": {told}" if told else ""),
        metadata={"pipeline": pipeline.name, "state": state, "reason_code": codes[-1] if codes else ""},
        hint=_remedy(pipeline),
    )


def _remedy(pipeline: Pipeline) -> str:
    if pipeline.state == PIPELINE_STATE_REFUSED:
        return (
            f"`fleetwright packages findings {pipeline.package}` says more; what can be borne for a time: "
            f"`fleetwright packages exceptions create {pipeline.package} ID`, where ID is a vulnerability's, "
            "or rule:NAME where a rule objects to the package as a whole."
        )
    if pipeline.state == PIPELINE_STATE_ERROR:
        return (
            f"`fleetwright packages log {pipeline.name}` says more; once the cause is mended, `fleetwright "
            f"packages retry {pipeline.name}` goes on from the stage that failed. What it was created with "
            "stays: to give another manifest or platform, build it again."
        )
    if pipeline.state == PIPELINE_STATE_CREATED:
        return f"`fleetwright packages execute {pipeline.name}` starts it."
    return ""


def _since(pipeline: Pipeline, now: datetime) -> str:
    return f"{shown_time(pipeline, 'state_time')} ({age(pipeline, 'state_time', now)} ago)"


def _source(pipeline: Pipeline) -> str:
    return " at ".join(filter(None, (pipeline.source_repository, pipeline.source_commit)))


def _signature(signature: Any) -> str:
    by = f" by {signature.verified_by}" if signature.verified_by else ""
    detail = f" ({signature.detail})" if signature.detail else ""
    return f"{signature.kind} {signature.state}{by}{detail}"


def _took(stage: StageReport) -> str:
    if not stage.HasField("start_time") or not stage.HasField("end_time"):
        return ""
    return shown_duration(instant(stage.end_time) - instant(stage.start_time))


def isolation_words(stage: StageReport) -> str:
    """Return how many of the limits held while foreign bytes were read, and of the others why not."""
    held = {name for name, value in stage.isolation.items() if value.startswith("held")}
    if not stage.isolation:
        return ""
    others = {name: value for name, value in stage.isolation.items() if name not in held}
    told = f"{len(held)} of {len(stage.isolation)} limits held"
    return f"{told}; {_pairs(others)}" if others else told


def _reason(stage: StageReport) -> str:
    code = f"{stage.reason_code}: " if stage.reason_code else ""
    return f"{code}{stage.reason}"


def _pairs(found: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(found.items()))


def _digests(found: Any) -> str:
    return ", ".join(f"{name} {value[:_DIGEST_SHOWN]}" for name, value in sorted(found.items()))


def stage_lines(stages: Sequence[StageReport]) -> list[StageReport]:
    """Return the stages in their order, however they came."""
    return sorted(stages, key=lambda stage: int(stage.stage))
