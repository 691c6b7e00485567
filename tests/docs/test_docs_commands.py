"""Every command in the README and the documents is run as it stands there.

How blocks are marked stands in ``blocks.py``; one document by hand: ``python -m tests.docs README.md``.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.docs.__main__ import CANNOT_RUN_HERE
from tests.docs.blocks import ROOT, Block, Document, documents, load
from tests.docs.clone import missing

DOCUMENTS = [load(path) for path in documents()]
BLOCKS = [block for document in DOCUMENTS for block in document.commands()]

# What no test can run. A block more needs a reason that holds, and this number raised.
NEVER_RUN_AT_MOST = 4


def runnable(document: Document) -> bool:
    return any(block.marks.is_run for block in document.commands())


def run(document: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.docs", document]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]:
    """Run the documents that were chosen two at a time: each has a network of its own, and waits a lot."""
    items: list[Any] = [item for item in request.session.items if _runs_a_document(item)]
    chosen = [item.callspec.params["document"].name for item in items]
    with ThreadPoolExecutor(max_workers=2) as pool:
        yield {name: pool.submit(run, name) for name in chosen}


def _runs_a_document(item: Any) -> bool:
    return getattr(item, "function", None) is test_every_command_of_a_document_runs_as_it_stands


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "document", [document for document in DOCUMENTS if runnable(document)], ids=lambda document: document.name
)
def test_every_command_of_a_document_runs_as_it_stands(
    document: Document, runs: dict[str, Future[subprocess.CompletedProcess[str]]]
) -> None:
    ended = runs[document.name].result()
    if ended.returncode == CANNOT_RUN_HERE:
        pytest.skip(ended.stdout)
    assert ended.returncode == 0, f"{ended.stderr}\n\nall of it:\n{ended.stdout[-20_000:]}"


@pytest.mark.parametrize("need", sorted({need for block in BLOCKS for need in block.marks.needs}))
def test_what_blocks_of_documents_need_is_here(need: str) -> None:
    places = [block.place for block in BLOCKS if need in block.marks.needs]
    if missing([need]):
        pytest.skip(f"there is no {need}, so these were left out: {', '.join(places)}")


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_a_block_that_is_not_run_says_why(block: Block) -> None:
    assert block.marks.is_run or len(block.marks.reason.split()) >= 3


def test_few_blocks_are_never_run() -> None:
    never = [f"{block.place}: {block.marks.reason}" for block in BLOCKS if block.marks.never]
    assert len(never) <= NEVER_RUN_AT_MOST, never


def test_every_block_that_looks_like_commands_names_its_shell() -> None:
    places = [b.place for d in DOCUMENTS for b in d.blocks if not b.is_command and b.looks_like_commands()]
    assert places == [], "write ```sh, or <!-- shows --> above what a command says"


def test_what_runs_elsewhere_runs_in_a_test() -> None:
    files = {Path(block.marks.elsewhere) for block in BLOCKS if block.marks.elsewhere}
    assert [str(path) for path in files if path.parts[0] != "tests" or not path.match("test_*.py")] == []
