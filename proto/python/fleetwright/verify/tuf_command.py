"""The TUF client as a program, by the protocol of TUF's conformance suite (its CLIENT-CLI.md).

The exit status is 0 where everything was done, 1 where anything was refused, with the reason on standard
error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

from fleetwright.verify import tuf_state
from fleetwright.verify.errors import StateError, TufError
from fleetwright.verify.fetching import HttpFetcher
from fleetwright.verify.tuf_client import TufClient

_TRUSTED: Final = "trusted_root"
"""Where ``init`` puts the root. Not ``*.json``: the suite takes every such file of the folder for a role."""


def run(arguments: list[str] | None, now: Callable[[], datetime]) -> int:
    """Run one command and return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "init":
            _init(options.metadata_dir, options.trusted_root)
        elif options.command == "refresh":
            _client(options, now).refresh()
        else:
            _download(options, now)
    except TufError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _init(folder: Path, trusted_root: Path) -> None:
    try:
        content = trusted_root.read_bytes()
    except OSError as error:
        raise StateError(f"{trusted_root}: {error.strerror}: name the file of the trusted root") from None
    with tuf_state.locked(folder):
        tuf_state.write(folder / _TRUSTED, content)
        tuf_state.write(folder / "root.json", content)


def _download(options: argparse.Namespace, now: Callable[[], datetime]) -> None:
    for name in ("target_name", "target_dir", "target_base_url"):
        if getattr(options, name) is None:
            raise StateError(f"--{name.replace('_', '-')}: missing: `download` needs it")
    # A path of the repository becomes one file's name: it can leave the folder in no way.
    destination = options.target_dir / quote(options.target_name, safe="")
    with suppress(OSError):
        options.target_dir.mkdir(parents=True, exist_ok=True)
    _client(options, now).download(options.target_name, destination)


def _client(options: argparse.Namespace, now: Callable[[], datetime]) -> TufClient:
    if options.metadata_url is None:
        raise StateError("--metadata-url: missing: name where the repository's metadata is")
    try:
        root = (options.metadata_dir / _TRUSTED).read_bytes()
    except OSError:
        raise StateError(f"{options.metadata_dir}: no trusted root in it: run `init` first") from None
    fetcher = HttpFetcher(options.metadata_url, options.target_base_url or options.metadata_url)
    # The specification knows no check of the clock against an earlier run.
    return TufClient(options.metadata_dir, root, fetcher, now, keep_clock=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fleetwright.verify.tuf_client", description="A client of a TUF repository."
    )
    parser.add_argument(
        "--metadata-dir", type=Path, required=True, help="folder of the client's trusted metadata"
    )
    parser.add_argument("--metadata-url", help="where the repository's metadata is")
    parser.add_argument("--target-name", help="path of the target in the repository")
    parser.add_argument("--target-base-url", help="where the repository's targets are")
    parser.add_argument("--target-dir", type=Path, help="folder for what is downloaded")
    commands = parser.add_subparsers(dest="command", required=True)
    init = commands.add_parser("init", help="begin with a trusted root; asks the repository nothing")
    init.add_argument("trusted_root", type=Path, help="file of the trusted root")
    commands.add_parser("refresh", help="follow the metadata to its newest")
    commands.add_parser("download", help="fetch a target, verified")
    return parser
