"""Artefacts that are made on the spot: one of each type, and wheels that take a while to read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from controlplane.packaging.rules import Stage
from tests.unit.packaging.archives import good

_LARGE = 2_000
"""Files of a wheel that takes a while: its jobs run for some hundred milliseconds each."""
_TYPES = {
    Stage.INTAKE: "wheel",
    Stage.BUILD: "npm",
    # The only one whose bytes SIGN changes: what was signed first has to stand.
    Stage.SIGN: "deb",
    Stage.SBOM: "jar",
    Stage.SCAN: "sdist",
    Stage.POLICY: "binary",
    Stage.STORE: "archive",
}
# What has no metadata is called by its file: two of one name and version cannot both be released.
_NAMES = {"binary": "runner-2.0"}


@dataclass(frozen=True)
class Artefact:
    """What a caller has packaged."""

    name: str
    """For people."""
    file_name: str
    data: bytes

    @cached_property
    def sha256(self) -> str:
        """Its digest."""
        return hashlib.sha256(self.data).hexdigest()


def artefact_for(stage: Stage) -> Artefact:
    """Return the artefact in whose pipeline a worker dies in ``stage``: another type in each."""
    kind = _TYPES[stage]
    file_name, data = good.GOOD[kind]
    return Artefact(kind, _NAMES.get(kind, file_name), data)


def large_wheel(number: int) -> Artefact:
    """Return a wheel with many files; another ``number`` is another version."""
    info = f"big_pkg-1.{number}.dist-info"
    files = {f"big_pkg/m{one}.py": b"VALUE = %d\n" % one * 20 for one in range(_LARGE)}
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: big-pkg\nVersion: 1.{number}\n".encode()
    files[f"{info}/WHEEL"] = good.WHEEL
    rows = [f"{path},{good.listed(data)}" for path, data in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    return Artefact(f"large wheel {number}", f"big_pkg-1.{number}-py3-none-any.whl", good.made_zip(files))
