"""Run one document by hand, as its test does: ``.venv/bin/python -m tests.docs docs/operations.md``.

Every document has a network of its own, where the kernel lets one make it, so that the ports that the
document names are free. Elsewhere they must be free, and one document runs at a time. Exit status: 0 all
was run, 1 the document does not do what it says, 77 it cannot be run here.
"""

from __future__ import annotations

import argparse
import fcntl
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.docs.blocks import ROOT, MarkError, load
from tests.docs.clone import make_clone, variables
from tests.docs.session import DocumentError, run_document

PORTS: Final = (7443, 7444, 7445, 7446)
CANNOT_RUN_HERE: Final = 77
_NAMESPACES: Final = (
    "unshare",
    "--map-root-user",
    "--net",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
)
_UP: Final = 'ip link set lo up && exec "$@"'


def main() -> int:
    """Run the document of the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.docs", description=__doc__)
    parser.add_argument("document", type=Path, help="path of a document from the root of the repository")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        return _inside(options.document, options.inside)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the folder is removed
    with tempfile.TemporaryDirectory(prefix="fleetwright-docs-") as folder:
        if _can_make_networks():
            return _again(options.document, folder)
        with Path(tempfile.gettempdir(), "fleetwright-docs.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if taken := [port for port in PORTS if not _is_free(port)]:
                print(f"no network of its own can be made here (unshare), and ports are in use: {taken}")
                return CANNOT_RUN_HERE
            return _inside(options.document, Path(folder))


def _can_make_networks() -> bool:
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    command = [*_NAMESPACES, "sh", "-c", _UP, "sh", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _again(document: Path, folder: str) -> int:
    again = [sys.executable, "-m", "tests.docs", str(document), "--inside", folder]
    return subprocess.run([*_NAMESPACES, "sh", "-c", _UP, "sh", *again], cwd=ROOT, check=False).returncode


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _inside(path: Path, folder: Path) -> int:
    try:
        document = load((ROOT / path).resolve())
        left_out = run_document(document, make_clone(folder), variables(folder / "home"))
    except (DocumentError, MarkError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for program in left_out:
        print(f"left out: {program}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
