"""``make tools`` says why grpcurl is not there, and breaks nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.docs.blocks import ROOT


def test_without_go_or_a_way_to_its_modules_it_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    script = shutil.copy2(ROOT / "scripts/tools", tmp_path / "scripts/tools")
    # One that is installed beside the PATH is found; it is told that there is no way.
    ended = subprocess.run(
        [str(script)],
        env={**os.environ, "GOPROXY": "off"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1, ended.stdout
    assert "tools: no grpcurl: " in ended.stderr
    assert not (tmp_path / ".cache/go").exists()
