"""Jobs as an artefact would have them that had taken over the process that read it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from controlplane.packaging.archives import jobs
from controlplane.packaging.building import jobs as building

FACTS: dict[str, Any] = {
    "type": "npm",
    "name": "x",
    "version": "1",
    "architecture": "",
    "os_family": "",
    "details": {},
}
FILE: dict[str, Any] = {
    "path": "a",
    "size": 1,
    "sha256": "a" * 64,
    "mode": 0o644,
    "link_target": "",
    "sha1": "",
}
ANSWER: dict[str, Any] = {"facts": FACTS, "file_count": 1, "nested_count": 0, "nested": []}
FILES = Path("out") / jobs.FILES


def _answer(files: object = None, **changes: Any) -> dict[str, Any]:
    FILES.write_text(json.dumps([FILE] if files is None else files))
    return {**ANSWER, **changes}


def another_type(**_: Any) -> dict[str, Any]:
    return _answer(facts={**FACTS, "type": "trojan"})


def facts_with_more(**_: Any) -> dict[str, Any]:
    return _answer(facts={**FACTS, "approved": "yes"})


def half_a_character(**_: Any) -> dict[str, Any]:
    return _answer([{**FILE, "path": "\ud800"}])


def a_path_outside(**_: Any) -> dict[str, Any]:
    return _answer([{**FILE, "path": "../../etc/passwd"}])


def another_count(**_: Any) -> dict[str, Any]:
    return _answer(file_count=7)


def a_digest_that_is_none(**_: Any) -> dict[str, Any]:
    return _answer([{**FILE, "sha256": "A" * 64}])


def a_path_twice(**_: Any) -> dict[str, Any]:
    return _answer([FILE, FILE], file_count=2)


def no_list(**_: Any) -> dict[str, Any]:
    return ANSWER


def a_deep_list(**_: Any) -> dict[str, Any]:
    FILES.write_text("[" * 200_000)
    return ANSWER


def a_link_in_the_place_of_the_list(**_: Any) -> dict[str, Any]:
    (Path("out") / "real").write_text(json.dumps([FILE]))
    os.symlink("real", FILES)
    return ANSWER


def no_object(**_: Any) -> list[str]:
    return ["x"]


def another_package(declared_name: str, expected_sha256: str) -> dict[str, Any]:
    """Build as asked, and say that it was made of something else."""
    answer = building.build_packages(declared_name, expected_sha256)
    manifest = Path("out") / building.MANIFESTS["archive"]
    document = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**document, "name": "openssl"}))
    return answer


def no_package(**_: Any) -> dict[str, Any]:
    return {"packages": [], "tools": {}}


def a_package_of_no_format(**_: Any) -> dict[str, Any]:
    return {"packages": [{"format": "../x", "details": {}}], "tools": {}}
