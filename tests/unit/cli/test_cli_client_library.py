"""``fleetwright.client``, ``fleetwright.errors`` and ``fleetwright.watching``, without a server."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from fleetwright import client
from fleetwright.client import Identity, check_address
from fleetwright.errors import ERROR_DOMAIN, AddressError, Failure, IdentityError, Violation
from fleetwright.watching import LONGEST_WAIT, follow, follow_aio
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from controlplane.trust import setup


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An identity as the server makes it."""
    return setup.init(tmp_path_factory.mktemp("site") / "data", "fleetwright.local", [], datetime.now(UTC))


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of it to be broken."""
    return Path(shutil.copytree(made, tmp_path / "identity"))


def encrypt(folder: Path) -> None:
    plain = folder / "plain.pem"
    (folder / "key.pem").rename(plain)
    subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-in", plain, "-out", folder / "key.pem", "-passout", "pass:secret"],
        check=True,
    )


def other_key(folder: Path) -> None:
    other = setup.init(folder.parent / "other", "fleetwright.local", [], datetime.now(UTC))
    shutil.copy(other / "key.pem", folder)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda folder: (folder / "ca.pem").unlink(), "ca.pem: No such file"),
        (lambda folder: (folder / "ca.pem").write_text("x"), "ca.pem is no certificate in PEM"),
        (lambda folder: (folder / "ca.pem").write_bytes(b"\xff"), "ca.pem is no certificate in PEM"),
        (lambda folder: (folder / "key.pem").write_text("x"), "not readable PEM"),
        (lambda folder: (folder / "cert.pem").write_text("x"), "not readable PEM"),
        (other_key, "the key is not the one of the certificate"),
        (encrypt, "the key is encrypted"),
        (shutil.rmtree, "key.pem: No such file"),
    ],
)
def test_an_identity_that_cannot_be_used_is_named_before_it_connects(
    folder: Path, harm: Callable[[Path], Any], words: str
) -> None:
    harm(folder)
    with pytest.raises(IdentityError, match=words) as refused:
        Identity.load(folder)
    assert str(folder) in str(refused.value)


def test_an_identity_does_not_show_its_key(folder: Path) -> None:
    assert "PRIVATE" not in repr(Identity.load(folder))


@pytest.mark.parametrize(
    "address",
    [
        "x",
        "x:",
        "x:0",
        "x:65536",
        "::1:7444",
        "http://x:1",
        "a b:1",
        "",
        "a..b:1",
        f"{'a' * 64}:1",
        "\udcff:1",
    ],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(AddressError, match="HOST:PORT"):
        check_address(address)


def test_every_channel_argument_is_known_to_grpc() -> None:
    [library] = Path(grpc.__file__).parent.glob("_cython/cygrpc*.so")
    known = library.read_bytes()
    assert [name for name, _ in client.OPTIONS if name.encode() not in known] == []


class Refused(grpc.RpcError):
    """What a call raises."""

    def __init__(self, code: grpc.StatusCode, *details: Any, raw: bytes | None = None) -> None:
        self._code = code
        status = status_pb2.Status(code=code.value[0], message="said")
        for detail in details:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        said = status.SerializeToString() if raw is None else raw
        self._metadata = (("grpc-status-details-bin", said),)

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "said"

    def trailing_metadata(self) -> Any:
        return self._metadata


def test_a_failure_has_all_that_the_server_says() -> None:
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromTimedelta(timedelta(seconds=3))
    failure = Failure.of(
        Refused(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            error_details_pb2.ErrorInfo(reason="RATE_LIMITED", domain="fleetwright", metadata={"limit": "5"}),
            error_details_pb2.BadRequest(field_violations=[{"field": "f", "description": "d"}]),
            retry,
        )
    )
    assert failure == Failure(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "RATE_LIMITED",
        "said",
        (Violation("f", "d"),),
        timedelta(seconds=3),
        {"limit": "5"},
    )
    assert failure.answered


@pytest.mark.parametrize("raw", [b"\xff\xff", b""])
def test_details_that_cannot_be_read_leave_the_status(raw: bytes) -> None:
    failure = Failure.of(Refused(grpc.StatusCode.NOT_FOUND, raw=raw))
    assert (failure.code, failure.message, failure.reason) == (grpc.StatusCode.NOT_FOUND, "said", "")
    assert not failure.answered


def test_a_reason_of_another_product_is_none_of_ours() -> None:
    info = error_details_pb2.ErrorInfo(reason="RATE_LIMITED", domain="elsewhere")
    assert Failure.of(Refused(grpc.StatusCode.UNAVAILABLE, info)).reason == ""


def test_an_error_without_a_status_is_unknown() -> None:
    assert Failure.of(grpc.RpcError("odd")).code is grpc.StatusCode.UNKNOWN


@dataclass
class Said:
    resume_token: str


UNAVAILABLE = Refused(grpc.StatusCode.UNAVAILABLE)


@dataclass
class Watches:
    """One watch after the other, each of which ends as it is told to."""

    scripts: list[list[Said | grpc.RpcError]]

    def __post_init__(self) -> None:
        self.opened_at: list[str] = []
        self.waits: list[float] = []
        self.reasons: list[Failure] = []

    def start(self, token: str) -> Iterator[Said]:
        self.opened_at.append(token)
        for item in self.scripts.pop(0):
            if isinstance(item, grpc.RpcError):
                raise item
            yield item

    def follow(self) -> Iterator[Said]:
        return follow(
            self.start, lost=lambda failure, wait: self.reasons.append(failure), wait=self.waits.append
        )


def test_a_watch_goes_on_after_the_last_token_it_had() -> None:
    watches = Watches([[Said("1"), Said("2"), Said(""), UNAVAILABLE], [UNAVAILABLE], [Said("3")], []])
    seen = watches.follow()
    assert [next(seen).resume_token for _ in range(4)] == ["1", "2", "", "3"]
    assert watches.opened_at == ["", "2", "2"]
    assert [failure.code for failure in watches.reasons] == [grpc.StatusCode.UNAVAILABLE] * 2


def test_an_end_in_order_is_a_loss_too() -> None:
    watches = Watches([[Said("1")], [Said("2")]])
    seen = watches.follow()
    assert [next(seen).resume_token for _ in range(2)] == ["1", "2"]
    assert watches.opened_at == ["", "1"]


def test_a_watch_that_never_began_fails_at_once() -> None:
    with pytest.raises(grpc.RpcError):
        next(Watches([[UNAVAILABLE]]).follow())


def test_a_refusal_that_repetition_does_not_mend_ends_a_watch() -> None:
    watches = Watches([[Said("1"), Refused(grpc.StatusCode.UNAUTHENTICATED)]])
    seen = watches.follow()
    next(seen)
    with pytest.raises(grpc.RpcError):
        next(seen)
    assert watches.waits == []


def test_a_stream_that_was_torn_off_is_a_loss_and_a_servers_unknown_is_not() -> None:
    reason = error_details_pb2.ErrorInfo(reason="INTERNAL", domain=ERROR_DOMAIN)
    torn, said = Refused(grpc.StatusCode.UNKNOWN), Refused(grpc.StatusCode.UNKNOWN, reason)
    watches = Watches([[Said("1"), torn], [Said("2"), said]])
    seen = watches.follow()
    assert [next(seen).resume_token for _ in range(2)] == ["1", "2"]
    with pytest.raises(grpc.RpcError):
        next(seen)


def test_a_server_that_says_when_to_come_back_is_believed() -> None:
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromTimedelta(timedelta(seconds=90))
    watches = Watches([[Said("1"), Refused(grpc.StatusCode.UNAVAILABLE, retry)], [Said("2")]])
    seen = watches.follow()
    next(seen)
    next(seen)
    assert watches.waits == [90.0]


def test_waits_grow_to_a_limit_and_begin_anew_after_a_change() -> None:
    lost: list[list[Said | grpc.RpcError]] = [[UNAVAILABLE] for _ in range(100)]
    watches = Watches([[Said("1"), UNAVAILABLE], *lost, [Said("2"), UNAVAILABLE], [Said("3")]])
    seen = watches.follow()
    for _ in range(3):
        next(seen)
    *first, last = watches.waits
    assert all(0 <= wait <= LONGEST_WAIT.total_seconds() for wait in first)
    assert first[0] <= 1
    assert max(first) > 1
    assert last <= 1


def test_what_is_left_early_is_cancelled() -> None:
    class Call:
        cancelled = False

        def __iter__(self) -> Iterator[Said]:
            return iter([Said("1"), Said("2")])

        def cancel(self) -> None:
            self.cancelled = True

    call = Call()
    seen = follow(lambda token: call)
    next(seen)
    seen.close()
    assert call.cancelled


class AsyncWatches(Watches):
    """The same for asyncio."""

    async def start_aio(self, token: str) -> AsyncIterator[Said]:
        for item in self.start(token):
            yield item

    def follow_aio(self) -> AsyncGenerator[Said, None]:
        async def wait(seconds: float) -> None:
            self.waits.append(seconds)

        return follow_aio(self.start_aio, lost=lambda failure, wait: self.reasons.append(failure), wait=wait)


async def test_a_watch_with_asyncio_goes_on_after_the_last_token_it_had() -> None:
    watches = AsyncWatches([[Said("1"), Said("2"), UNAVAILABLE], [UNAVAILABLE], [Said("3")]])
    async with aclosing(watches.follow_aio()) as changes:
        assert [(await anext(changes)).resume_token for _ in range(3)] == ["1", "2", "3"]
    assert watches.opened_at == ["", "2", "2"]
    assert [failure.code for failure in watches.reasons] == [grpc.StatusCode.UNAVAILABLE] * 2
    assert len(watches.waits) == 2


async def test_a_watch_with_asyncio_raises_what_repetition_does_not_mend() -> None:
    with pytest.raises(grpc.RpcError):
        await anext(AsyncWatches([[UNAVAILABLE]]).follow_aio())
