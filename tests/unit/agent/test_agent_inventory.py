"""The inventory: what package managers print, and a real one of this host."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import protovalidate
import pytest
from fleetwright.v1 import work_pb2

from agent_sim.agent.inventory import (
    MAX_INVENTORY_BYTES,
    _add_packages,
    host_facts,
    inventory_digest,
    parse_os_release,
    take_inventory,
)
from agent_sim.agent.packages import (
    SOURCES,
    PackageList,
    QueryError,
    installed_packages,
    parse_dpkg,
    parse_pip,
    parse_rpm,
    query,
)

Row = tuple[str, str, str, str]


def rows(packages: list[work_pb2.InstalledPackage]) -> list[Row]:
    return [(one.manager, one.name, one.version, one.architecture) for one in packages]


def test_dpkg_lists_only_what_is_installed() -> None:
    text = "ii \tadduser\t3.134\tall\nrc \told\t1.0\tamd64\nhi \theld\t2:1.2-3\tamd64\nnoise\n"
    assert rows(list(parse_dpkg(text))) == [
        ("dpkg", "adduser", "3.134", "all"),
        ("dpkg", "held", "2:1.2-3", "amd64"),
    ]


def test_rpm_shows_an_epoch_only_where_there_is_one() -> None:
    text = (
        "bash\t(none)\t5.1.8\t6.el9\tx86_64\n"
        "openssl\t1\t3.0.7\t27.el9\tx86_64\n"
        "gpg-pubkey\t(none)\tfd431d51\t4ae0493b\t(none)\n"
        "meta\t(none)\t1\t1\t(none)\n"
    )
    assert rows(list(parse_rpm(text))) == [
        ("rpm", "bash", "5.1.8-6.el9", "x86_64"),
        ("rpm", "openssl", "1:3.0.7-27.el9", "x86_64"),
        ("rpm", "meta", "1-1", ""),
    ]


def test_pip_leaves_out_what_has_no_name_or_version() -> None:
    text = json.dumps([["six", "1.16.0"], [None, "1"], ["broken", None]])
    assert rows(list(parse_pip(text))) == [("pip", "six", "1.16.0", "")]


def test_os_release_is_read_with_its_quotes_and_escapes() -> None:
    text = '# c\nNAME="A \\"B\\""\nVERSION_ID=\'12\'\nID=debian\nbad line\nEMPTY=\n'
    assert parse_os_release(text) == {"NAME": 'A "B"', "VERSION_ID": "12", "ID": "debian", "EMPTY": ""}


def program(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


async def test_packages_are_sorted_and_what_is_missing_says_why(tmp_path: Path) -> None:
    program(tmp_path, "dpkg-query", r"printf 'ii \tb\t1\tall\nii \ta\t2\tall\nii \ta\t2\tall\n'")
    program(tmp_path, "python3", "echo nonsense")
    found = await installed_packages(path=str(tmp_path))
    assert rows(found.packages) == [("dpkg", "a", "2", "all"), ("dpkg", "b", "1", "all")]
    assert found.missing == ["rpm: not installed", "pip: answered in a form that is not known"]


async def test_a_source_that_fails_is_missing(tmp_path: Path) -> None:
    for source in SOURCES:
        program(tmp_path, source.program, "exit 7")
    found = await installed_packages(path=str(tmp_path))
    assert found.missing == [f"{source.manager}: exit status 7" for source in SOURCES]


async def test_an_answer_without_end_is_cut_off() -> None:
    with pytest.raises(QueryError, match="more than 1000000 bytes"):
        await query(
            ["/bin/sh", "-c", "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxx; done"], {}, byte_limit=1_000_000
        )


async def test_a_query_that_does_not_answer_is_ended() -> None:
    with pytest.raises(QueryError, match=r"within 0\.01 s"):
        await query(["/bin/sleep", "60"], {}, time_limit=timedelta(seconds=0.01))


async def test_the_inventory_of_this_host_keeps_the_contract() -> None:
    inventory = await take_inventory(include_packages=True)
    protovalidate.validate(inventory)
    assert inventory.host == host_facts()
    assert inventory.cpu_count > 0
    assert inventory.memory_bytes > 0
    assert inventory.interfaces
    assert {one.manager for one in inventory.packages} | {one.split(":")[0] for one in inventory.missing} >= {
        "dpkg",
        "rpm",
        "pip",
    }
    assert inventory.digest == inventory_digest(inventory)


def test_the_digest_leaves_out_the_boot_time_and_itself_and_nothing_else() -> None:
    inventory = work_pb2.InventoryResult(cpu_count=2)
    before = inventory_digest(inventory)
    inventory.boot_time.FromSeconds(1)
    inventory.digest = "x"
    assert inventory_digest(inventory) == before
    inventory.packages.add(manager="pip", name="six", version="1")
    assert inventory_digest(inventory) != before


def test_an_inventory_fits_a_message_and_says_what_did_not() -> None:
    packages = [
        work_pb2.InstalledPackage(manager="dpkg", name=f"{n:0200}", version="1") for n in range(30_000)
    ]
    inventory = work_pb2.InventoryResult()
    _add_packages(inventory, PackageList(packages, ["rpm: not installed"]))
    assert MAX_INVENTORY_BYTES - 1000 < inventory.ByteSize() <= MAX_INVENTORY_BYTES + 256
    left_out = len(packages) - len(inventory.packages)
    assert list(inventory.missing) == ["rpm: not installed", f"packages: {left_out} of 30000 did not fit"]
