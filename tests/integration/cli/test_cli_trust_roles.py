"""``fleetwright trust``: the offline roles of a server that runs, from the draft to the agents."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fleetwright.v1.enrollment_service_pb2 import EnrollRequest, EnrollResponse

from certs.requests import good
from controlplane.trust.keys import SigningKey, load_key
from controlplane.trust.tuf.ceremony import Initialised, initialise
from controlplane.trust.tuf.roles import Expiries, Thresholds
from controlplane.trust.tuf.rotation import add_signature, draft_root
from tests.integration.cli.command import Command, Ended
from tests.support.in_process import LocalSite


@pytest.fixture
def made(site: LocalSite, tmp_path: Path, folder: Path) -> Initialised:
    """Keys that are made while the server runs."""
    return initialise(
        tmp_path / "offline",
        folder / "release-trust",
        now=datetime.now(UTC),
        thresholds=Thresholds(),
        expiries=Expiries(),
        channels=["stable"],
    )


async def root_at_enrolment(site: LocalSite, agent_id: str, token: str) -> bytes:
    request = EnrollRequest(
        join_token=token, agent_id=agent_id, certificate_signing_request=good(agent_id).der
    )
    answer: EnrollResponse = await site.enrollment().Enroll(request)
    return answer.trusted_root


async def roles(fleetwright: Command) -> dict[str, dict[str, Any]]:
    ended = await fleetwright("trust", "status", "-o", "json")
    return {one["role"]: one for one in ended.document["roles"]}


def keys(made: Initialised, role: str, *numbers: int) -> list[str]:
    return [word for n in numbers for word in ("--key", str(made.offline / f"{role}-{n}.pem"))]


async def sure(fleetwright: Command, *words: object) -> Ended:
    ended = await fleetwright(*(str(word) for word in words))
    assert ended.status == 0, ended.errors
    return ended


async def test_a_root_goes_from_holder_to_holder_and_reaches_the_agents(
    fleetwright: Command, site: LocalSite, made: Initialised, tmp_path: Path
) -> None:
    _, token = await site.admin().token(max_uses=2)
    assert await root_at_enrolment(site, "node-1", token) == made.trusted_root.read_bytes()
    draft = tmp_path / "root-2.json"
    drafted = await sure(fleetwright, "trust", "draft-root", "--out", draft, "--for", "400d")
    assert "root version 2" in drafted.out
    await sure(fleetwright, "trust", "sign", draft, *keys(made, "root", 1), "--yes")
    refused = await fleetwright("trust", "install", str(draft), "--check")
    assert refused.status != 0
    assert "by the keys of the root before it: 1 of 2 signatures" in refused.errors
    await sure(fleetwright, "trust", "sign", draft, *keys(made, "root", 3), "--yes")
    checked = await sure(fleetwright, "trust", "install", draft, "--check")
    assert "nothing is missing" in checked.out
    assert (await roles(fleetwright))["root"]["version"] == 1
    assert "in force" in (await sure(fleetwright, "trust", "install", draft)).out
    assert "it was in force already" in (await sure(fleetwright, "trust", "install", draft)).out
    assert await root_at_enrolment(site, "node-2", token) == draft.read_bytes()


async def test_a_lost_key_is_replaced_and_signs_no_more(
    fleetwright: Command, made: Initialised, tmp_path: Path
) -> None:
    lost = load_key(made.offline / "root-3.pem")
    fresh, draft = tmp_path / "root-4.pem", tmp_path / "root-2.json"
    await sure(fleetwright, "trust", "key", fresh)
    change = ("--add", f"root={fresh}.pub", "--drop", f"root={lost.key_id[:8]}", "--threshold", "root=3")
    await sure(fleetwright, "trust", "draft-root", "--out", draft, *change)
    told = (await sure(fleetwright, "trust", "tell", draft, "-o", "json")).document
    assert told["roles"]["root"]["threshold"] == 3
    assert lost.key_id not in told["roles"]["root"]["keyIds"]
    signing = [*keys(made, "root", 1, 2), "--key", str(fresh)]
    await sure(fleetwright, "trust", "sign", draft, *signing, "--yes")
    await sure(fleetwright, "trust", "install", draft)
    found = (await roles(fleetwright))["root"]
    assert (found["version"], found["threshold"], len(found["keyIds"])) == (2, 3, 3)


async def test_attesters_and_channels_come_with_targets(
    fleetwright: Command, made: Initialised, tmp_path: Path
) -> None:
    document, attesters = tmp_path / "targets-2.json", tmp_path / "attesters.json"
    channel = made.online / "keys" / "channel-canary.pem"
    await sure(fleetwright, "trust", "key", channel)
    await sure(
        fleetwright,
        *("trust", "draft-targets", "--out", document, "--channel", f"canary={channel}.pub"),
        *("--renew-attesters", attesters, "--attesters-for", "900d"),
    )
    await sure(fleetwright, "trust", "sign", document, *keys(made, "targets", 1, 2), "--yes")
    refused = await fleetwright("trust", "install", str(document))
    assert "bring that document too" in refused.errors
    await sure(fleetwright, "trust", "install", document, "--key-document", attesters)
    found = await roles(fleetwright)
    assert (found["targets"]["version"], found["canary"]["version"]) == (2, 1)


async def test_drafts_that_cannot_be_are_refused_in_words(
    fleetwright: Command, made: Initialised, tmp_path: Path
) -> None:
    out, other = tmp_path / "new.json", tmp_path / "other.pem"
    await sure(fleetwright, "trust", "key", other)
    for words, said in (
        (("draft-root", "--out", out, "--threshold", "root=9"), "9 of 3 different keys"),
        (("draft-root", "--out", out, "--drop", "root=1234"), "8 digits or more"),
        (("draft-root", "--out", out, "--add", f"stable={other}.pub"), "a root speaks of"),
        (("draft-root", "--out", other), "exists already"),
        (
            ("draft-targets", "--out", out, "--renew-attesters", out, "--attesters-for", "9d"),
            "take a later end",
        ),
        (("draft-targets", "--out", out, "--channel", f"root={other}.pub"), "channel 'root'"),
    ):
        ended = await fleetwright("trust", *(str(word) for word in words))
        assert ended.status != 0
        assert said in ended.errors, (words, ended.errors)
    assert not out.exists()


async def test_a_forged_root_is_refused(fleetwright: Command, made: Initialised, tmp_path: Path) -> None:
    mine = [SigningKey.generate() for _ in range(2)]
    forged = draft_root(made.trusted_root.read_bytes(), {}, datetime.now(UTC) + timedelta(days=9))
    for key in mine:
        forged = add_signature(forged, key)
    (tmp_path / "forged.json").write_bytes(forged)
    ended = await fleetwright("trust", "install", str(tmp_path / "forged.json"))
    assert "0 of 2 signatures" in ended.errors
    assert (await roles(fleetwright))["root"]["version"] == 1


async def test_before_the_keys_are_made_a_server_says_so(fleetwright: Command, tmp_path: Path) -> None:
    for words in (("status",), ("draft-root", "--out", str(tmp_path / "r.json"))):
        ended = await fleetwright("trust", *words)
        assert ended.status == 1
        assert "fleetwright trust init" in ended.errors
