"""The client as a program, by the protocol of TUF's conformance suite, over a real HTTP server."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fleetwright.verify import tuf_command

from controlplane.trust.tuf.ceremony import initialise, load_online, target_file_name
from controlplane.trust.tuf.publishing import publish
from controlplane.trust.tuf.roles import Expiries, Thresholds
from tests.unit.verify.evidence_world import PACKAGE, PATH, sha, target


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the base class names it
        """Say nothing."""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A repository of now, in folders as a web server has them."""
    now = datetime.now(UTC)
    online = tmp_path / "site"
    initialise(
        tmp_path / "offline",
        online,
        now=now,
        thresholds=Thresholds(),
        expiries=Expiries(),
        channels=["stable"],
    )
    loaded = load_online(online)
    made = publish(loaded.state, "stable", [target(PATH, PACKAGE)], loaded.keys, now, Expiries())
    for name, content in made.files.items():
        (online / "metadata" / name).write_bytes(content)
    file = online / "targets" / target_file_name(PATH, sha(PACKAGE))
    file.parent.mkdir(parents=True)
    file.write_bytes(PACKAGE)
    return online


@pytest.fixture
def url(site: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def run(*words: object) -> int:
    return tuf_command.run([str(word) for word in words], lambda: datetime.now(UTC))


def download(folder: Path, url: str, path: str) -> int:
    return run(
        "--metadata-dir", folder / "state", "--metadata-url", f"{url}/metadata", "--target-name", path,
        "--target-dir", folder / "out", "--target-base-url", f"{url}/targets", "download",
    )  # fmt: skip


def test_it_begins_refreshes_and_downloads(site: Path, url: str, tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert run("--metadata-dir", state, "init", site / "root.json") == 0
    assert (state / "root.json").read_bytes() == (site / "root.json").read_bytes()
    assert run("--metadata-dir", state, "--metadata-url", f"{url}/metadata", "refresh") == 0
    names = {path.name for path in state.glob("*.json")}
    assert names == {"root.json", "timestamp.json", "snapshot.json", "targets.json"}
    assert download(tmp_path, url, PATH) == 0
    assert [path.read_bytes() for path in (tmp_path / "out").iterdir()] == [PACKAGE]


def test_it_may_begin_again(site: Path, url: str, tmp_path: Path) -> None:
    for _ in range(2):
        assert run("--metadata-dir", tmp_path / "state", "init", site / "root.json") == 0
        assert download(tmp_path, url, PATH) == 0


def test_what_is_not_released_is_refused_after_a_refresh(
    site: Path, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("--metadata-dir", tmp_path / "state", "init", site / "root.json")
    assert download(tmp_path, url, "../../etc/passwd") == 1
    assert "UnknownTarget: ../../etc/passwd: not released" in capsys.readouterr().err
    assert (tmp_path / "state" / "targets.json").exists()


def test_nothing_is_asked_before_it_has_begun(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert download(tmp_path, url, PATH) == 1
    assert "run `init` first" in capsys.readouterr().err


def test_a_server_that_is_not_there_fails(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state"
    run("--metadata-dir", state, "init", site / "root.json")
    assert run("--metadata-dir", state, "--metadata-url", "http://127.0.0.1:1/metadata", "refresh") == 1
    assert "FetchFailed: 2.root.json" in capsys.readouterr().err


def test_options_that_are_missing_are_named(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "state"
    assert run("--metadata-dir", state, "init", tmp_path / "none") == 1
    run("--metadata-dir", state, "init", site / "root.json")
    assert run("--metadata-dir", state, "refresh") == 1
    assert run("--metadata-dir", state, "--metadata-url", "http://127.0.0.1:1", "download") == 1
    told = capsys.readouterr().err
    assert "none: No such file" in told
    assert "--metadata-url: missing" in told
    assert "--target-name: missing" in told


def test_the_module_is_the_program(site: Path, tmp_path: Path) -> None:
    words = ["--metadata-dir", str(tmp_path / "state"), "init", str(site / "root.json")]
    ended = subprocess.run(
        [sys.executable, "-m", "fleetwright.verify.tuf_client", *words],
        env={"PYTHONPATH": "proto/python", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
