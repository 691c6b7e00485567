from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from cryptography import x509

from agent_sim.protocol.clock import ServerTime, SystemClock
from agent_sim.protocol.connection import ChannelOptions, ServerAddresses
from agent_sim.protocol.credentials import IdentityInUse
from agent_sim.protocol.errors import EnrollmentRequiredError, IdentityError
from agent_sim.protocol.failures import Failure
from agent_sim.protocol.identity import (
    AgentIdentity,
    IdentityStore,
    MemoryIdentityStore,
    certificate_signing_request,
    generate_key,
)
from agent_sim.protocol.identity_folder import FolderIdentityStore


def identity(name: str) -> AgentIdentity:
    time = datetime(2026, 1, 1, tzinfo=UTC)
    return AgentIdentity(
        "a1", "spiffe://t/agent/a1", name.encode(), b"c", b"b", time, time, time, ("localhost:7443",)
    )


@pytest.fixture(params=["memory", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> IdentityStore:
    return MemoryIdentityStore() if request.param == "memory" else FolderIdentityStore(tmp_path / "identity")


def test_a_store_is_empty_before_enrolment(store: IdentityStore) -> None:
    assert (store.current(), store.next()) == (None, None)


def test_the_next_identity_stands_beside_the_current_one_until_it_is_promoted(store: IdentityStore) -> None:
    store.save(identity("one"))
    store.save_next(identity("two"))
    assert (store.current(), store.next()) == (identity("one"), identity("two"))
    store.promote()
    assert (store.current(), store.next()) == (identity("two"), None)
    store.promote()
    assert store.current() == identity("two")


def test_a_new_enrolment_forgets_a_next_identity(store: IdentityStore) -> None:
    store.save_next(identity("two"))
    store.save(identity("one"))
    assert (store.current(), store.next()) == (identity("one"), None)


def test_only_the_owner_reads_a_key(tmp_path: Path) -> None:
    FolderIdentityStore(tmp_path / "identity").save(identity("one"))
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / "identity").iterdir()]
    assert modes == [0o600]
    assert (tmp_path / "identity").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("content", [b"", b"{}", b'{"format": 9}', b"\xff\xfe"])
def test_a_damaged_identity_is_named_with_its_remedy(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "identity.json").write_bytes(content)
    with pytest.raises(IdentityError, match="enrol again"):
        FolderIdentityStore(tmp_path).current()


def test_a_request_has_only_the_agents_name() -> None:
    csr = x509.load_der_x509_csr(certificate_signing_request(generate_key(), "a-1"))
    assert csr.subject.rfc4514_string() == "CN=a-1"
    assert csr.is_signature_valid


@pytest.mark.parametrize("agent_id", ["", "A", "-a", "a-", "a" * 64, "a b"])
def test_a_name_that_is_no_agent_id_is_refused(agent_id: str) -> None:
    with pytest.raises(ValueError, match="lower-case"):
        certificate_signing_request(generate_key(), agent_id)


def test_every_channel_argument_is_known_to_the_installed_grpc() -> None:
    library = next((Path(grpc.__file__).parent / "_cython").glob("cygrpc*.so")).read_bytes()
    options = ChannelOptions(http_proxy="http://proxy:3128").arguments()
    assert [name for name, _ in options if name.encode() + b"\0" not in library] == []


def test_addresses_are_tried_in_turn() -> None:
    addresses = ServerAddresses(["a:1", "b:2"])
    seen = []
    for _ in range(3):
        seen.append(addresses.current)
        addresses.advance()
    assert seen == ["a:1", "b:2", "a:1"]


def test_a_folder_that_cannot_be_written_is_an_identity_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(IdentityError, match=r"identity-next\.json: cannot be written"):
        FolderIdentityStore(tmp_path / "file").save_next(identity("one"))


def test_a_damaged_next_identity_gives_way_to_the_current_one(tmp_path: Path) -> None:
    store = FolderIdentityStore(tmp_path)
    store.save(identity("one"))
    (tmp_path / "identity-next.json").write_bytes(b"{")
    assert IdentityInUse(store, ServerTime(SystemClock()), 3).begin() == identity("one")
    assert store.next() is None


def test_a_damaged_next_identity_alone_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "identity-next.json").write_bytes(b"{")
    with pytest.raises(IdentityError, match="enrol again"):
        IdentityInUse(FolderIdentityStore(tmp_path), ServerTime(SystemClock()), 3).begin()


def test_an_outage_is_never_final_though_the_certificate_ended_by_the_own_clock() -> None:
    in_use = IdentityInUse(MemoryIdentityStore(identity("one")), ServerTime(SystemClock()), 2)
    in_use.begin()
    outage = Failure(grpc.StatusCode.UNAVAILABLE)
    assert [in_use.refused(outage) for _ in range(5)] == [True] * 5
    refusal = Failure(grpc.StatusCode.UNAUTHENTICATED, "CERTIFICATE_EXPIRED")
    assert in_use.refused(refusal)
    with pytest.raises(EnrollmentRequiredError, match="expired at 2026-01-01"):
        in_use.refused(refusal)
