"""The stubs in the repository are those that the contracts and the pinned generator give."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
STUBS = ROOT / "proto" / "python"


def generated_files(folder: Path) -> dict[str, bytes]:
    patterns = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi", "contract.binpb")
    files = (path for pattern in patterns for path in folder.rglob(pattern))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_stubs_have_not_drifted_from_the_contracts(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHON": sys.executable}
    subprocess.run([ROOT / "scripts" / "generate", tmp_path], check=True, env=environment)
    fresh, kept = generated_files(tmp_path), generated_files(STUBS)
    assert sorted(kept) == sorted(fresh), "run `make generate`"
    drifted = [name for name, made in fresh.items() if kept[name] != made]
    assert drifted == [], "run `make generate`, and never edit what it makes"


def test_every_stub_imports_without_a_warning() -> None:
    names = [name for name in generated_files(STUBS) if name.endswith(".py")]
    modules = sorted(name.removesuffix(".py").replace("/", ".") for name in names)
    # In a process of its own: descriptors register once, and the tests have imported some already.
    code = f"import sys; sys.path.insert(0, {str(STUBS)!r})\nimport {', '.join(modules)}"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
