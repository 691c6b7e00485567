"""``fleetwright packages upload``: sent once, gone on with after every cut."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import grpc
import pytest
from fleetwright.v1.packaging_service_pb2 import GetUploadRequest, StartUploadRequest

from tests.integration.cli.command import Command
from tests.integration.cli.factory import Factory, sha
from tests.integration.cli.refusals import Refusal

MIB = 1024 * 1024
CONTENT = os.urandom(3 * MIB + 17)
"""Three messages and a bit."""
DIGEST = sha(CONTENT)


@pytest.fixture
def artefact(home: Path) -> Path:
    """A file of it."""
    file = home / "curl_8.1_amd64.deb"
    file.write_bytes(CONTENT)
    return file


async def test_a_file_is_announced_by_its_digest_and_sent(
    packager: Command, factory: Factory, artefact: Path
) -> None:
    ended = await packager("packages", "upload", artefact.name)
    assert (ended.status, ended.out, ended.errors) == (0, f"artefacts/{DIGEST}\n", "")
    [asked] = factory.of(StartUploadRequest)
    assert (asked.file_name, asked.size_bytes, asked.sha256) == (artefact.name, 3 * MIB + 17, DIGEST)
    assert factory.received["uploads/u1"] == CONTENT


async def test_a_server_that_has_the_bytes_gets_none(
    packager: Command, factory: Factory, artefact: Path
) -> None:
    await packager("packages", "upload", artefact.name)
    factory.offsets.clear()
    ended = await packager("packages", "upload", artefact.name, "-o", "json")
    assert ended.document["uploads"][0]["artefact"] == f"artefacts/{DIGEST}"
    assert factory.offsets == []


async def test_an_upload_that_is_cut_off_goes_on_by_itself_where_the_server_stands(
    packager: Command, factory: Factory, artefact: Path
) -> None:
    factory.cuts = [MIB, 2 * MIB + 5]
    ended = await packager("packages", "upload", artefact.name)
    assert ended.status == 0
    assert factory.offsets == [0, MIB, 2 * MIB + 5]
    assert factory.received["uploads/u1"] == CONTENT
    assert ended.errors.count("cut off") == 2


async def test_a_question_that_is_lost_is_asked_again(
    packager: Command, factory: Factory, artefact: Path
) -> None:
    factory.cuts = [MIB]
    factory.refusals["GetUpload"] = [Refusal(grpc.StatusCode.UNAVAILABLE)]
    ended = await packager("packages", "upload", artefact.name)
    assert ended.status == 0
    assert len(factory.of(GetUploadRequest)) == 2


async def test_what_one_command_left_a_later_one_completes(
    packager: Command, factory: Factory, artefact: Path
) -> None:
    factory.cuts = [2 * MIB]
    factory.refusals["GetUpload"] = [Refusal(grpc.StatusCode.PERMISSION_DENIED, "ROLE_NOT_ALLOWED")]
    assert (await packager("packages", "upload", artefact.name)).status == 4
    ended = await packager("packages", "upload", artefact.name)
    assert ended.status == 0
    assert factory.offsets == [0, 2 * MIB]


async def test_ctrl_c_says_that_the_same_command_goes_on(
    packager: Command, factory: Factory, artefact: Path
) -> None:
    factory.cuts = [MIB]
    # Long enough that the test ends it, not the wait.
    factory.refusals["GetUpload"] = [Refusal(grpc.StatusCode.UNAVAILABLE)] * 100
    running = await packager.start("packages", "upload", artefact.name)
    assert "cut off" in await running.note()
    running.process.send_signal(signal.SIGINT)
    ended = await running.ended()
    assert ended.status == 130
    assert "the same command goes on there" in ended.errors


async def test_an_upload_that_the_server_has_forgotten_is_begun_anew(
    packager: Command, factory: Factory, artefact: Path
) -> None:
    gone = Refusal(grpc.StatusCode.NOT_FOUND, "UPLOAD_UNKNOWN")
    factory.refusals["StartUpload"] = [gone]
    ended = await packager("packages", "upload", artefact.name)
    assert ended.status == 0
    first, second = factory.of(StartUploadRequest)
    assert first.request_id != second.request_id


async def test_another_command_that_goes_on_with_the_same_upload_is_no_failure(
    packager: Command, factory: Factory, artefact: Path
) -> None:
    factory.rival = CONTENT[:MIB]
    ended = await packager("packages", "upload", artefact.name)
    assert (ended.status, ended.errors) == (0, "")
    assert factory.offsets == [0, MIB]


async def test_other_bytes_than_announced_are_told_with_the_file(
    packager: Command, factory: Factory, artefact: Path
) -> None:
    factory.refusals["StartUpload"] = []
    original = factory._standing

    def other(name: str) -> object:
        upload = original(name)
        upload.sha256 = "0" * 64
        return upload

    factory._standing = other  # type: ignore[method-assign]
    ended = await packager("packages", "upload", artefact.name)
    assert (ended.status, ended.out) == (2, "")
    assert "other bytes came" in ended.errors
    assert "curl_8.1_amd64.deb may have changed" in ended.errors


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.whl", b"", "empty.whl: is empty"),
        ("nothing.whl", None, "nothing.whl: No such file or directory"),
    ],
)
async def test_what_cannot_be_an_artefact_is_told_before_anything_is_sent(
    packager: Command, factory: Factory, home: Path, name: str, content: bytes | None, said: str
) -> None:
    if content is not None:
        (home / name).write_bytes(content)
    ended = await packager("packages", "upload", name)
    assert ended.status in {1, 2}
    assert said in ended.errors
    assert factory.asked == []


async def test_a_folder_and_a_pipe_are_no_artefacts(packager: Command, factory: Factory, home: Path) -> None:
    (home / "folder").mkdir()
    os.mkfifo(home / "pipe")
    for name in ("folder", "pipe"):
        ended = await packager("packages", "upload", name)
        assert ended.status == 2
        assert f"{name}: is no regular file" in ended.errors
    assert factory.asked == []


async def test_a_file_has_another_name_where_that_is_said(
    packager: Command, factory: Factory, artefact: Path
) -> None:
    await packager("packages", "upload", artefact.name, "--name", "curl.deb")
    assert [asked.file_name for asked in factory.of(StartUploadRequest)] == ["curl.deb"]
    refused = await packager("packages", "upload", artefact.name, "--name", "a/b")
    assert refused.status == 2
    assert "--name 'a/b'" in refused.errors


async def test_programs_get_the_artefacts_by_name(
    packager: Command, factory: Factory, artefact: Path, home: Path
) -> None:
    (home / "other.whl").write_bytes(b"other")
    ended = await packager("packages", "upload", artefact.name, "other.whl", "-o", "name")
    assert ended.lines == [f"artefacts/{DIGEST}", f"artefacts/{sha(b'other')}"]


async def test_what_came_before_a_file_that_failed_is_still_told(
    packager: Command, factory: Factory, artefact: Path
) -> None:
    ended = await packager("packages", "upload", artefact.name, "nothing.whl", "-o", "json")
    assert ended.status == 1
    assert [one["fileName"] for one in ended.document["uploads"]] == [artefact.name]


async def test_a_terminal_shows_how_far_it_is(packager: Command, factory: Factory, artefact: Path) -> None:
    status, screen = await packager.on_a_terminal("packages", "upload", artefact.name)
    assert status == 0
    assert "sending curl_8.1_amd64.deb" in screen
    assert f"artefacts/{DIGEST}" in screen
