"""Packages, pipelines and deployments in words."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from fleetwright.v1 import packaging_service_pb2 as pb
from fleetwright.v1 import work_pb2
from hypothesis import given
from hypothesis import strategies as st

from controlplane.cli.failures import CommandFailed
from controlplane.cli.packages import words
from controlplane.cli.packages.deploying import statuses_words
from controlplane.cli.packages.fetching import _plain
from controlplane.cli.packages.naming import digest_named, joined, package_named
from controlplane.cli.packages.pipeline_views import must_be_released
from controlplane.cli.packages.sending import name_of
from controlplane.cli.packages.views import exception_state, shown_size

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def packages(*found: pb.Package) -> Any:
    """Return a client of a store that has these packages, and the filters that it was asked with."""
    filters: list[str] = []

    def list_packages(request: pb.ListPackagesRequest) -> pb.ListPackagesResponse:
        filters.append(request.filter)
        return pb.ListPackagesResponse(packages=found)

    return SimpleNamespace(packaging=SimpleNamespace(ListPackages=list_packages), filters=filters)


@pytest.mark.parametrize(
    ("text", "filter_"),
    [
        ("curl", 'package_name = "curl"'),
        ("curl@8.1", 'package_name = "curl" AND version = "8.1"'),
        ("@scope/name", 'package_name = "@scope/name"'),
        ("@scope/name@1.0", 'package_name = "@scope/name" AND version = "1.0"'),
        ('we"ird*', 'package_name = "we\\"ird\\*"'),
    ],
)
def test_a_name_means_just_this_name(text: str, filter_: str) -> None:
    client = packages(pb.Package(name="packages/x"))
    assert package_named(client, text) == "packages/x"
    assert client.filters == [filter_]


def test_what_is_not_released_is_not_chosen_where_agents_are_to_have_it() -> None:
    client = packages(pb.Package(name="packages/new"), pb.Package(name="packages/old", channel="stable"))
    assert package_named(client, "curl", released=True) == "packages/old"
    with pytest.raises(CommandFailed, match="several packages are called so"):
        package_named(client, "curl")


def test_many_packages_of_a_name_are_told_in_a_few_lines() -> None:
    client = packages(*(pb.Package(name=f"packages/{number}", package_name="curl") for number in range(50)))
    with pytest.raises(CommandFailed) as raised:
        package_named(client, "curl")
    assert raised.value.hint.splitlines()[-1] == "  and 42 more"


@pytest.mark.parametrize("text", ["a" * 64, "sha256:" + "a" * 64, "packages/" + "a" * 64])
def test_a_digest_is_written_in_three_ways(text: str) -> None:
    assert digest_named(text, "packages/") == "a" * 64


@pytest.mark.parametrize(
    "text", ["a" * 63, "A" * 64, "curl", "packages/", "artefacts/" + "a" * 64, "a" * 64 + "\n"]
)
def test_what_is_no_digest_is_none(text: str) -> None:
    assert digest_named(text, "packages/") is None


def test_filters_are_joined_with_the_typed_one_first() -> None:
    assert joined("a = 1", "", "b = 2") == "a = 1 AND b = 2"
    assert joined(" ", "") == ""


def test_every_state_of_the_contract_has_a_name_and_every_bad_end_is_an_error() -> None:
    for state in pb.PipelineState.values():
        pipeline = pb.Pipeline(name="pipelines/p", state=state)
        if state in words.RELEASED:
            must_be_released(pipeline)
        else:
            with pytest.raises(CommandFailed, match=f"is {words.state_name(state)}"):
                must_be_released(pipeline)
    assert {words.state_name(state) for state in words.FINAL} == {
        *("PASSED", "EXCEPTED", "REFUSED", "ERROR", "CANCELLED")
    }


def test_vulnerabilities_that_nobody_has_rated_are_counted_too() -> None:
    assert (
        words.counts_words(pb.VulnerabilityCounts(critical=1, unknown=2_000)) == "1 critical, 2,000 unknown"
    )
    assert words.counts_words(pb.VulnerabilityCounts()) == "none known"


def test_what_nobody_looks_for_stands_beside_what_is_known() -> None:
    found = pb.VulnerabilityCounts(high=1)
    assert words.vulnerabilities_words(pb.Package(vulnerabilities=found)) == "1 high"
    assert words.vulnerabilities_words(pb.Package(not_covered=["npm", "unknown"])) == (
        "none known; not covered: npm, unknown"
    )


def test_values_are_chosen_in_any_case_and_with_hyphens() -> None:
    status = work_pb2.DeploymentStatus
    chosen = words.chosen("--status", ["rolled-back", "FAILED"], status, "DEPLOYMENT_STATUS_")
    assert chosen == "(ROLLED_BACK OR FAILED)"
    assert words.chosen("--status", None, status, "DEPLOYMENT_STATUS_") == ""
    with pytest.raises(typer.BadParameter, match="'UNSPECIFIED': choose one of PENDING"):
        words.chosen("--status", ["UNSPECIFIED"], status, "DEPLOYMENT_STATUS_")


def test_statuses_are_counted_in_the_order_of_an_installation() -> None:
    failed, installed = work_pb2.DEPLOYMENT_STATUS_FAILED, work_pb2.DEPLOYMENT_STATUS_INSTALLED
    assert statuses_words([failed, installed, installed]) == "2 INSTALLED, 1 FAILED"


@pytest.mark.parametrize(
    ("approver", "expires", "revoked", "state"),
    [
        ("", NOW.timestamp() + 1, False, "WAITING"),
        ("ada", NOW.timestamp() + 1, False, "APPROVED"),
        ("ada", NOW.timestamp(), False, "EXPIRED"),
        ("ada", NOW.timestamp() + 1, True, "REVOKED"),
        ("ada", NOW.timestamp() - 1, True, "REVOKED"),
    ],
)
def test_an_exception_counts_only_while_it_is_approved(
    approver: str, expires: float, revoked: bool, state: str
) -> None:
    exception = pb.PolicyException(approver=approver)
    exception.expire_time.FromSeconds(int(expires))
    if revoked:
        exception.revoke_time.FromSeconds(1)
    assert exception_state(exception, NOW) == state


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 bytes"), (1_023, "1,023 bytes"), (1_536, "1.5 KiB"), (5 * 1024**4, "5120.0 GiB")],
)
def test_sizes_are_said_as_people_do(count: int, said: str) -> None:
    assert shown_size(count) == said


@given(st.text())
def test_a_name_of_a_file_stays_in_its_folder(text: str) -> None:
    name = _plain(text)
    assert Path(name).name == name
    assert not name.startswith((".", "-"))


@pytest.mark.parametrize("name", ["a/b", "a\\b", "a\n", "", "ä" * 128, "\udcff"])
def test_a_name_that_the_contract_does_not_take_is_refused(name: str) -> None:
    with pytest.raises(CommandFailed, match="--name"):
        name_of(Path("file"), name)
