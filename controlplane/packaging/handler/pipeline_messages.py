"""The contract's form of uploads, pipelines, their stages and their logs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleetwright.v1 import packaging_service_pb2 as pb2

from controlplane import redaction
from controlplane.packaging.service import NewPipeline, Shown
from controlplane.packaging.store.pipelines import Counts, LogLine, PipelineRecord, StageRecord
from controlplane.packaging.store.uploads import UploadRecord
from controlplane.transport.messages import timestamp


def ident(name: str) -> str:
    """Return the id within a resource's name."""
    return name.partition("/")[2]


def upload_message(upload: UploadRecord) -> pb2.Upload:
    """Return the contract's form of an upload."""
    return pb2.Upload(
        name=f"uploads/{upload.upload_id}",
        file_name=upload.file_name,
        size_bytes=upload.size,
        sha256=upload.sha256,
        committed_bytes=upload.committed,
        artefact=f"artefacts/{upload.sha256}" if upload.complete else "",
        create_time=timestamp(upload.create_time),
        expire_time=timestamp(upload.expire_time),
    )


def new_pipeline(request: pb2.CreatePipelineRequest) -> NewPipeline:
    """Return the room's form of a request."""
    return NewPipeline(
        artefact=ident(request.artefact),
        target_platform=request.target_platform,
        channel=request.channel,
        on_demand=request.on_demand,
        build_id=request.build_id,
        source_repository=request.source_repository,
        source_commit=request.source_commit,
        manifest=request.manifest,
        vex=request.vex,
    )


def counts_message(counts: Counts | None) -> pb2.VulnerabilityCounts | None:
    """Return the contract's form of counts; None stays None."""
    if counts is None:
        return None
    critical, high, medium, low, unknown = counts
    return pb2.VulnerabilityCounts(critical=critical, high=high, medium=medium, low=low, unknown=unknown)


def pipeline_message(shown: Shown) -> pb2.Pipeline:
    """Return the contract's form of a pipeline."""
    pipeline = shown.pipeline
    return pb2.Pipeline(
        name=f"pipelines/{pipeline.pipeline_id}",
        artefact=f"artefacts/{pipeline.artefact}",
        file_name=pipeline.file_name,
        artefact_type=pipeline.artefact_type,
        target_platform=pipeline.target_platform,
        package_name=pipeline.package_name,
        package_version=pipeline.package_version,
        channel=pipeline.channel,
        stage=pb2.Stage.ValueType(int(pipeline.stage or 0)),
        stages=[_stage_message(stage) for stage in shown.stages],
        vulnerabilities=counts_message(pipeline.counts),
        build_id=pipeline.build_id,
        source_repository=redaction.text(pipeline.source_repository),
        source_commit=pipeline.source_commit,
        signatures=[_signature_message(one) for one in shown.signatures],
        package=f"packages/{pipeline.package}" if pipeline.package else "",
        creator=pipeline.creator,
        run_count=pipeline.run_count,
        **_state_of(pipeline),
    )


def _state_of(pipeline: PipelineRecord) -> dict[str, Any]:
    return {
        "state": pb2.PipelineState.ValueType(int(pipeline.state)),
        "state_time": timestamp(pipeline.state_time),
        "reason": redaction.text(pipeline.reason),
        "decision": pb2.PolicyDecision.ValueType(int(pipeline.decision)),
        "create_time": timestamp(pipeline.create_time),
        "update_time": timestamp(pipeline.update_time),
    }


def _stage_message(stage: StageRecord) -> pb2.StageReport:
    report = stage.report
    return pb2.StageReport(
        stage=pb2.Stage.ValueType(int(stage.stage)),
        state=pb2.StageState.ValueType(int(stage.state)),
        start_time=timestamp(stage.start_time),
        end_time=timestamp(stage.end_time),
        reason=redaction.text(stage.reason),
        reason_code=stage.reason_code,
        tools=report.get("tools", {}),
        inputs=report.get("inputs", {}),
        outputs=report.get("outputs", {}),
        isolation=report.get("isolation", {}),
        run_count=stage.run_count,
    )


def _signature_message(signature: Mapping[str, str]) -> pb2.SignatureReport:
    return pb2.SignatureReport(
        kind=signature.get("kind", ""),
        key_id=signature.get("key_id", ""),
        state=signature.get("state", ""),
        verified_by=signature.get("verified_by", ""),
        detail=signature.get("detail", ""),
    )


def line_message(line: LogLine) -> pb2.PipelineLogLine:
    """Return the contract's form of a line of a log."""
    return pb2.PipelineLogLine(
        number=line.number,
        time=timestamp(line.time),
        stage=pb2.Stage.ValueType(int(line.stage)),
        level=line.level,
        text=line.text,
    )
