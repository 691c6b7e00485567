"""Downloads: whatever a server cuts, what arrives is the package or an error."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from fleetwright.verify.errors import (
    EndlessData,
    FetchFailed,
    NotFound,
    SlowData,
    VerificationError,
    WrongTarget,
)
from fleetwright.verify.reports import Report, missing, ok, wrong
from fleetwright.verify.tuf_client import Release
from hypothesis import given
from hypothesis import strategies as st

from agent_sim.host import (
    FilesDamagedError,
    FilesEndlessError,
    FilesRefusedError,
    FilesUnavailableError,
    FileUnknownError,
    Piece,
)
from agent_sim.released.downloading import Download
from agent_sim.released.patience import Patience
from agent_sim.released.reasons import CODES, of_error, of_report

QUICK = Patience(tries=3, base=timedelta(0), cap=timedelta(0))
CONTENT = bytes(range(256)) * 4


class Server:
    """Gives so many bytes at each call and then ends, with an error or without."""

    def __init__(self, runs: list[tuple[int, Exception | None]], content: bytes = CONTENT) -> None:
        self.runs, self.content = runs, content
        self.offsets: list[int] = []

    async def metadata(self, name: str) -> bytes:
        raise FileUnknownError(name)

    async def artefact(self, sha256: str, offset: int) -> AsyncIterator[Piece]:
        self.offsets.append(offset)
        length, error = self.runs.pop(0) if self.runs else (len(self.content), None)
        for start in range(offset, min(offset + length, len(self.content)), 100):
            data = self.content[start : min(start + 100, offset + length)]
            yield Piece(start, data, len(self.content))
        if error is not None:
            raise error


def release(content: bytes = CONTENT) -> Release:
    return Release("stable/p/p.tar.gz", len(content), {"sha256": hashlib.sha256(content).hexdigest()})


async def fetch(server: Server, partial: Path, **parts: object) -> list[int]:
    counted: list[int] = []
    download = Download(server, QUICK, **parts)  # type: ignore[arg-type]
    await download.fetch(release(server.content), partial, lambda _: None, counted.append)
    return counted


@given(st.lists(st.tuples(st.integers(1, 700), st.booleans()), max_size=12), st.integers(0, len(CONTENT)))
def test_however_it_is_cut_it_becomes_whole(runs: list[tuple[int, bool]], have: int) -> None:
    cuts = [(length, FilesUnavailableError("cut") if cut else None) for length, cut in runs]
    with tempfile.TemporaryDirectory() as folder:
        partial = Path(folder) / "partial"
        partial.write_bytes(CONTENT[:have])
        assert asyncio.run(fetch(Server([*cuts]), partial)) == [len(CONTENT) - have]
        assert partial.read_bytes() == CONTENT


async def test_a_server_that_gives_nothing_is_not_asked_for_ever(tmp_path: Path) -> None:
    server = Server([(0, FilesUnavailableError("busy"))] * 9)
    with pytest.raises(FetchFailed, match="busy: tried 3 times"):
        await fetch(server, tmp_path / "partial")
    assert server.offsets == [0, 0, 0]


async def test_what_is_longer_than_the_package_is_begun_anew(tmp_path: Path) -> None:
    partial = tmp_path / "partial"
    partial.write_bytes(bytes(len(CONTENT) + 1))
    assert await fetch(Server([]), partial) == [len(CONTENT)]
    assert partial.read_bytes() == CONTENT


async def test_an_empty_package_needs_no_server(tmp_path: Path) -> None:
    server = Server([], b"")
    assert await fetch(server, tmp_path / "partial") == [0]
    assert server.offsets == []


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FileUnknownError("gone"), NotFound),
        (FilesRefusedError("no"), FetchFailed),
        (FilesDamagedError("changed"), WrongTarget),
        (FilesEndlessError("long"), EndlessData),
    ],
)
async def test_a_refusal_is_not_asked_again(tmp_path: Path, error: Exception, kind: type[Exception]) -> None:
    server = Server([(100, error)])
    with pytest.raises(kind, match=str(error)):
        await fetch(server, tmp_path / "partial")
    assert server.offsets == [0]
    assert (tmp_path / "partial").read_bytes() == CONTENT[:100]


async def test_data_that_trickles_is_given_up(tmp_path: Path) -> None:
    moments = iter(range(0, 10_000, 400))
    with pytest.raises(SlowData, match="not whole in its time"):
        await fetch(Server([]), tmp_path / "partial", monotonic=lambda: float(next(moments)))


def test_every_error_of_verification_has_a_word_of_its_own() -> None:
    assert len(set(CODES.values())) == len(CODES)
    for kind, code in CODES.items():
        assert of_error(kind("why")).code == code
    assert of_error(VerificationError("why")).code == "NOT_VERIFIED"


def test_the_first_failure_of_a_report_gives_the_word_and_all_give_the_reason() -> None:
    report = Report((ok("tuf", "good"), missing("sbom", "none"), wrong("verdict", "FAIL")))
    error = of_report(report)
    assert error is not None
    assert (error.code, error.reason) == ("SBOM_MISSING", "sbom: none; verdict: FAIL")
    assert of_report(report, without=frozenset({"sbom", "verdict"})) is None
    empty = of_report(Report(()))
    assert empty is not None
    assert empty.code == "NOT_VERIFIED"


def test_a_server_that_names_a_time_is_waited_for() -> None:
    patience = Patience()
    assert 60 <= patience.delay(1, timedelta(minutes=1)) <= 66
    assert patience.delay(1, timedelta(days=1)) <= 330
    assert 0 <= patience.delay(9, None) <= 30
