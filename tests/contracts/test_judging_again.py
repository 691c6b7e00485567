"""Packages that are there, judged again: at imports, under another policy, as exceptions and verdicts end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from controlplane.callers import Caller
from controlplane.errors import InvalidArgument, NotFound, PermissionDenied, Unavailable
from controlplane.filtering import read
from controlplane.packaging.exceptions import ExceptionsService
from controlplane.packaging.packages import PackagesService
from controlplane.packaging.policy.cel import load_policy
from controlplane.packaging.policy.default import DEFAULT_POLICY
from controlplane.packaging.rescanning import Rescanned
from controlplane.packaging.rules import Decision
from controlplane.packaging.store import exceptions as excepted
from controlplane.packaging.store import packages
from controlplane.packaging.store.exceptions import ExceptionRecord
from controlplane.storage.location import Location
from controlplane.storage.opening import open_database
from tests.contracts.agents_world import OPERATOR
from tests.contracts.packaging_world import (
    APP,
    CRITICAL,
    LOW,
    QUIET,
    PackagingWorld,
    advisory,
    sha,
)
from tests.contracts.test_judging_packages import ERRING

BYTES = b"the final bytes"
PACKAGE = sha(BYTES)
ADA = OPERATOR
BOB = replace(OPERATOR, name="bob", spiffe_id="spiffe://fleetwright.local/operator/bob")
DAY = 86_400
NEW = "2024-05-02T00:00:00Z"
BAD = advisory("X-1", vector=CRITICAL, aliases=["CVE-2024-1234", "GHSA-x"], modified=NEW)


@pytest_asyncio.fixture
async def world(location: Location, tmp_path: Path) -> AsyncIterator[PackagingWorld]:
    database = open_database(location)
    try:
        yield PackagingWorld(database, tmp_path)
    finally:
        await database.close()


def service(world: PackagingWorld) -> ExceptionsService:
    # By way of the world: a test may have exchanged its policy.
    return ExceptionsService(world.database, world.clock, lambda package: world.rescanning.one(package))


async def asked(
    world: PackagingWorld,
    vulnerability: str = "CVE-2024-1234",
    caller: Caller = ADA,
    request_id: str = "",
    hours: int = 24,
) -> ExceptionRecord:
    return await service(world).create(
        caller, PACKAGE, vulnerability, "we do not call it", timedelta(hours=hours), request_id
    )


async def decision(world: PackagingWorld) -> Decision:
    return (await world.package()).decision


# --- what imports bring


async def test_what_turned_bad_is_withdrawn_and_reported_with_the_agents_that_have_it(
    world: PackagingWorld,
) -> None:
    await world.put(QUIET)
    await world.judged(await world.made())
    world.released.agents[PACKAGE] = ["a1", "a2"]
    world.clock.advance(2 * DAY)
    await world.put(QUIET, BAD)
    found = await world.rescanning.run()
    (turned,) = found.turned
    assert (turned.before, turned.after, turned.bad) == (Decision.PASS, Decision.FAIL, True)
    assert (turned.package_name, turned.version, turned.agents) == ("app", "1.0", ("a1", "a2"))
    assert "CVE-2024-1234 in pkg:pypi/foo@0.5" in turned.reasons[0]
    assert world.released.asked == [("withdraw", PACKAGE)]
    assert (await world.package()).counts == (1, 0, 0, 0, 0)
    assert await world.rescanning.run() == Rescanned(0, [], [])


async def test_what_turned_good_is_released(world: PackagingWorld) -> None:
    await world.put(QUIET, BAD)
    await world.judged(await world.made())
    world.clock.advance(DAY)
    await world.put(QUIET)
    found = await world.rescanning.run()
    assert [(one.before, one.after) for one in found.turned] == [(Decision.FAIL, Decision.PASS)]
    assert world.released.asked == [("publish", PACKAGE)]
    assert await world.refused() == []


async def test_an_import_that_changes_nothing_is_noted_and_no_evidence_is_made_for_it(
    world: PackagingWorld,
) -> None:
    await world.put(QUIET)
    await world.judged(await world.made())
    before, verdict = await world.package(), await world.envelope("verdict")
    world.clock.advance(DAY)
    await world.put(QUIET, advisory("X-9", "another"))
    assert await world.rescanning.run() == Rescanned(1, [], [])
    package = await world.package()
    assert package.known != before.known
    assert (await world.envelope("verdict"), world.released.asked) == (verdict, [])
    assert (await world.rescanning.run()).looked_at == 0


async def test_a_finding_that_changes_no_decision_is_evidence_all_the_same(world: PackagingWorld) -> None:
    await world.put(QUIET)
    await world.judged(await world.made())
    world.clock.advance(DAY)
    await world.put(QUIET, advisory("X-1", vector=LOW))
    found = await world.rescanning.run()
    assert (found.looked_at, list(found.turned)) == (1, [])
    assert world.released.asked == [("publish", PACKAGE)]
    assert (await world.package()).counts == (0, 0, 0, 1, 0)
    assert await world.refused() == []


async def test_a_crash_before_the_judging_leaves_packages_due(world: PackagingWorld) -> None:
    """Nothing is kept of a run but the packages themselves: another process goes on."""
    await world.put(QUIET)
    for number in range(3):
        await world.judged(await world.made(content=b"bytes %d" % number, pipeline_id=f"p{number}"))
    world.clock.advance(2 * DAY)
    await world.put(QUIET, BAD)
    await world.rescanning.one(sha(b"bytes 1"))
    world.under(load_policy(DEFAULT_POLICY))
    assert (await world.rescanning.run()).looked_at == 2
    assert len(world.released.asked) == 3


# --- verdicts end


async def test_a_verdict_is_renewed_and_released_at_half_of_its_life(world: PackagingWorld) -> None:
    await world.put(QUIET)
    await world.judged(await world.made())
    ends = (await world.package()).verdict_expire_time
    assert ends == world.clock.micros() + 8 * DAY * 1_000_000
    world.clock.advance(4 * DAY - 1)
    assert (await world.rescanning.run()).looked_at == 0
    world.clock.advance(1)
    assert (await world.rescanning.run()).looked_at == 1
    assert world.released.asked == [("publish", PACKAGE)]
    assert (await world.package()).verdict_expire_time == world.clock.micros() + 8 * DAY * 1_000_000
    assert await world.refused() == []


async def test_no_verdict_outlives_the_advisories_it_was_made_by(world: PackagingWorld) -> None:
    await world.put(QUIET)
    await world.judged(await world.made())
    # The newest advisory is of April 30th, 00:00, and twenty days old at most.
    for _ in range(30):
        world.clock.advance(DAY)
        await world.rescanning.run()
        assert await decision(world) is Decision.PASS or world.clock.now().isoformat() >= "2024-05-20"
    assert await decision(world) is Decision.UNJUDGED
    assert world.released.asked[-1] == ("withdraw", PACKAGE)
    (reason,) = (await world.package()).decision_reasons
    assert "import the newest export" in reason


async def test_what_could_not_be_judged_is_released_again_when_it_can(world: PackagingWorld) -> None:
    await world.put(QUIET)
    await world.judged(await world.made())
    world.clock.advance(25 * DAY)
    found = await world.rescanning.run()
    assert [one.code for one in found.problems] == ["ADVISORIES_STALE"]
    assert [one.bad for one in found.turned] == [True]
    await world.put(QUIET, advisory("X-9", "another", modified="2024-05-25T00:00:00Z"))
    await world.rescanning.run()
    assert await decision(world) is Decision.PASS
    assert world.released.asked == [("withdraw", PACKAGE), ("publish", PACKAGE)]
    assert await world.refused() == []


# --- policies


async def test_another_policy_judges_all_that_is_there(world: PackagingWorld) -> None:
    await world.put(QUIET, advisory("X-1", vector=LOW))
    await world.judged(await world.made())
    world.under(load_policy(DEFAULT_POLICY.replace(b'"high"', b'"low"')))
    found = await world.rescanning.run()
    assert [(one.before, one.after) for one in found.turned] == [(Decision.PASS, Decision.FAIL)]


async def test_a_policy_that_errs_is_told_and_decides_nothing(world: PackagingWorld) -> None:
    await world.put(QUIET)
    await world.judged(await world.made())
    world.under(load_policy(ERRING))
    found = await world.rescanning.run()
    assert [(one.package, one.code) for one in found.problems] == [(PACKAGE, "POLICY_ERRED")]
    assert (await decision(world), world.released.asked) == (Decision.PASS, [])
    world.clock.advance(8 * DAY)
    await world.rescanning.run()
    assert await decision(world) is Decision.UNJUDGED


async def test_a_release_that_fails_is_told_and_the_decision_stands(world: PackagingWorld) -> None:
    async def fails(package: str, reason: str, /) -> None:
        raise Unavailable("STORAGE_UNAVAILABLE", "the disk is full")

    await world.put(QUIET)
    await world.judged(await world.made())
    world.clock.advance(2 * DAY)
    await world.put(QUIET, BAD)
    world.released.withdraw = fails  # type: ignore[method-assign] # a release that fails
    found = await world.rescanning.run()
    assert [one.code for one in found.problems] == ["STORAGE_UNAVAILABLE"]
    assert [one.after for one in found.turned] == [Decision.FAIL]
    assert await decision(world) is Decision.FAIL


# --- exceptions


async def refused_by_policy(world: PackagingWorld) -> None:
    world.clock.advance(2 * DAY)
    await world.put(QUIET, BAD)
    await world.judged(await world.made())
    assert await decision(world) is Decision.FAIL


async def test_an_exception_counts_once_somebody_else_has_approved_it(world: PackagingWorld) -> None:
    await refused_by_policy(world)
    made = await asked(world)
    assert await decision(world) is Decision.FAIL
    with pytest.raises(PermissionDenied) as caught:
        await service(world).approve(ADA, made.exception_id)
    assert caught.value.reason == "APPROVER_IS_REQUESTER"
    approved = await service(world).approve(BOB, made.exception_id)
    assert (approved.approver, approved.approve_time) == (BOB.spiffe_id, world.clock.micros())
    package = await world.package()
    assert package.decision is Decision.EXCEPTION
    assert package.verdict_expire_time == made.expire_time
    assert world.released.asked == [("publish", PACKAGE)]
    assert await world.refused() == []
    (found,) = await world.database.read(lambda connection: packages.findings(connection, PACKAGE))
    assert found.exception_id == made.exception_id


async def test_an_exception_may_name_any_id_of_the_vulnerability(world: PackagingWorld) -> None:
    await refused_by_policy(world)
    await service(world).approve(BOB, (await asked(world, "GHSA-x")).exception_id)
    assert await decision(world) is Decision.EXCEPTION


async def test_an_exception_for_another_vulnerability_changes_nothing(world: PackagingWorld) -> None:
    await refused_by_policy(world)
    await service(world).approve(BOB, (await asked(world, "CVE-2024-9999")).exception_id)
    assert await decision(world) is Decision.FAIL


async def test_an_exception_that_ends_takes_the_package_with_it(world: PackagingWorld) -> None:
    await refused_by_policy(world)
    await service(world).approve(BOB, (await asked(world)).exception_id)
    world.clock.advance(DAY - 1)
    await world.rescanning.run()
    assert await decision(world) is Decision.EXCEPTION
    world.clock.advance(1)
    assert "verdict" in await world.refused(), "agents refuse it at once, whatever the server does"
    found = await world.rescanning.run()
    assert [(one.before, one.after) for one in found.turned] == [(Decision.EXCEPTION, Decision.FAIL)]
    assert world.released.asked[-1] == ("withdraw", PACKAGE)


async def test_a_revoked_exception_ends_at_once(world: PackagingWorld) -> None:
    await refused_by_policy(world)
    made = await asked(world)
    await service(world).approve(BOB, made.exception_id)
    revoked = await service(world).revoke(ADA, made.exception_id)
    assert revoked.revoke_time == world.clock.micros()
    assert await decision(world) is Decision.FAIL
    assert world.released.asked == [("publish", PACKAGE), ("withdraw", PACKAGE)]
    again = await service(world).revoke(BOB, made.exception_id)
    assert again == revoked
    with pytest.raises(InvalidArgument, match="was revoked"):
        await service(world).approve(BOB, made.exception_id)


async def test_a_revoked_exception_ends_also_where_nobody_can_judge(world: PackagingWorld) -> None:
    await refused_by_policy(world)
    made = await asked(world, hours=24 * 60)
    await service(world).approve(BOB, made.exception_id)
    world.under(load_policy(ERRING))
    await service(world).revoke(ADA, made.exception_id)
    assert await decision(world) is Decision.UNJUDGED
    assert world.released.asked[-1] == ("withdraw", PACKAGE)


async def test_an_approval_that_could_not_be_followed_is_by_the_schedule(world: PackagingWorld) -> None:
    await refused_by_policy(world)
    made = await asked(world)

    async def killed(_package: str) -> None:
        """As if the process had ended here."""

    await ExceptionsService(world.database, world.clock, killed).approve(BOB, made.exception_id)
    assert await decision(world) is Decision.FAIL
    await world.rescanning.run()
    assert await decision(world) is Decision.EXCEPTION


async def test_an_exception_that_has_expired_is_not_approved(world: PackagingWorld) -> None:
    await refused_by_policy(world)
    made = await asked(world)
    world.clock.advance(DAY)
    with pytest.raises(InvalidArgument, match="has expired"):
        await service(world).approve(BOB, made.exception_id)


async def test_the_first_approver_stands(world: PackagingWorld) -> None:
    await refused_by_policy(world)
    made = await asked(world)
    carol = replace(BOB, name="carol", spiffe_id="spiffe://fleetwright.local/operator/carol")
    first = await service(world).approve(BOB, made.exception_id)
    assert await service(world).approve(carol, made.exception_id) == first


async def test_a_rule_about_the_whole_package_can_be_excused_by_its_name(world: PackagingWorld) -> None:
    await world.put(QUIET)
    await world.judged(
        await world.made(APP, replace(APP, ecosystem="", name="blob", purl="pkg:generic/blob"))
    )
    assert await decision(world) is Decision.FAIL
    await service(world).approve(BOB, (await asked(world, "rule:covered")).exception_id)
    assert await decision(world) is Decision.EXCEPTION
    assert await world.refused() == []


async def test_the_same_call_makes_one_exception(world: PackagingWorld) -> None:
    await refused_by_policy(world)
    first = await asked(world, request_id="r1")
    world.clock.advance(60)
    assert await asked(world, request_id="r1") == first
    assert (await asked(world, caller=BOB, request_id="r1")).exception_id != first.exception_id
    with pytest.raises(InvalidArgument) as caught:
        await asked(world, "CVE-2024-9999", request_id="r1")
    assert caught.value.reason == "REQUEST_ID_REUSED"
    assert await service(world).count(read("", excepted.FILTER)) == 2


async def test_what_an_exception_names_must_be_there(world: PackagingWorld) -> None:
    with pytest.raises(NotFound) as caught:
        await asked(world)
    assert caught.value.reason == "PACKAGE_UNKNOWN"
    for call in (service(world).approve, service(world).revoke):
        with pytest.raises(NotFound) as unknown:
            await call(BOB, "none")
        assert unknown.value.reason == "EXCEPTION_UNKNOWN"


@pytest.mark.parametrize("vulnerability", ["", "  ", "CVE\0"])
async def test_an_exception_without_a_vulnerability_is_refused(
    world: PackagingWorld, vulnerability: str
) -> None:
    await refused_by_policy(world)
    with pytest.raises(InvalidArgument, match="vulnerability"):
        await asked(world, vulnerability)


async def test_exceptions_are_listed_by_what_became_of_them(world: PackagingWorld) -> None:
    await refused_by_policy(world)
    first = await asked(world, "CVE-2024-1")
    world.clock.advance(1)
    second = await asked(world, "CVE-2024-2")
    await service(world).approve(BOB, first.exception_id)
    await service(world).revoke(BOB, first.exception_id)

    async def listed(text: str) -> list[str]:
        found = await service(world).page(read(text, excepted.FILTER), None, 10)
        return [one.vulnerability for one in found]

    assert await listed("") == ["CVE-2024-2", "CVE-2024-1"]
    assert await listed("approved = true AND revoked = true") == ["CVE-2024-1"]
    assert await listed("NOT approved = true") == ["CVE-2024-2"]
    assert await listed('vulnerability = "CVE-2024-2"') == ["CVE-2024-2"]
    place = (second.create_time, second.exception_id)
    found = await service(world).page(read("", excepted.FILTER), place, 10)
    assert [one.exception_id for one in found] == [first.exception_id]


# --- packages for administrators


async def test_packages_are_found_by_what_is_in_them_and_against_them(world: PackagingWorld) -> None:
    await world.put(QUIET, BAD)
    await world.judged(await world.made())
    world.clock.advance(1)
    await world.judged(await world.made(APP, content=b"other", pipeline_id="p2"))
    world.released.agents[PACKAGE] = ["a1"]
    service = PackagesService(world.database, world.released)

    async def listed(text: str) -> list[str]:
        chosen = read(text, packages.FILTER)
        found = await service.page(chosen, None, 10)
        assert await service.count(chosen) == len(found)
        return [one.package.sha256 for one in found]

    assert await listed("") == [sha(b"other"), PACKAGE]
    assert await listed("decision = FAIL") == [PACKAGE]
    assert await listed("decision = POLICY_DECISION_PASS") == [sha(b"other")]
    assert await listed("critical > 0") == [PACKAGE]
    assert await listed('vulnerability:"GHSA-x"') == [PACKAGE]
    assert await listed('vulnerability:"CVE-2024-1234"') == [PACKAGE]
    assert await listed('component:"pkg:pypi/foo@*"') == [PACKAGE]
    assert await listed('NOT component:"pkg:pypi/foo@0.5"') == [sha(b"other")]
    assert await listed("package_name = app AND version = 1.0") == [sha(b"other"), PACKAGE]


async def test_a_package_is_shown_with_its_evidence_and_who_has_it(world: PackagingWorld) -> None:
    await world.put(QUIET, BAD)
    await world.judged(await world.made())
    world.released.agents[PACKAGE] = ["a1"]
    service = PackagesService(world.database, world.released)
    found = await service.get(PACKAGE)
    assert (found.installed_count, sorted(found.attestations)) == (
        1,
        ["provenance", "sbom", "scan", "verdict"],
    )
    assert sha(await service.envelope(PACKAGE, "verdict")) == found.attestations["verdict"]
    assert len(await service.findings(PACKAGE, 0, 10)) == await service.count_findings(PACKAGE) == 1
    assert await service.findings(PACKAGE, 1, 10) == []
    with pytest.raises(NotFound, match="it has provenance, sbom, scan, verdict"):
        await service.envelope(PACKAGE, "openpgp")
    for call in (service.get("d" * 64), service.findings("d" * 64, 0, 10)):
        with pytest.raises(NotFound) as caught:
            await call
        assert caught.value.reason == "PACKAGE_UNKNOWN"


async def test_pages_of_packages_follow_each_other(world: PackagingWorld) -> None:
    await world.put(QUIET)
    for number in range(5):
        await world.judged(await world.made(content=b"bytes %d" % number, pipeline_id=f"p{number}"))
    service = PackagesService(world.database, world.released)
    everything, seen = read("", packages.FILTER), []
    place: tuple[int, str] | None = None
    while found := await service.page(everything, place, 2):
        seen += [one.package.sha256 for one in found]
        place = (found[-1].package.create_time, found[-1].package.sha256)
    assert sorted(seen) == sorted(sha(b"bytes %d" % number) for number in range(5))
