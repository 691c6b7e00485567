"""What a job answers is believed only where it can be."""

from __future__ import annotations

from functools import partial

import pytest

from controlplane.packaging.isolation import running
from controlplane.packaging.isolation.functions import FUNCTIONS
from controlplane.packaging.rules import Stage
from controlplane.packaging.stages import StageFailed, workshop
from tests.integration.packaging import lying_jobs
from tests.integration.packaging.making_world import World, failure
from tests.unit.packaging.archives.good import GOOD

pytestmark = pytest.mark.parametrize("location", ["sqlite"], indirect=True)
INTAKE = [
    lying_jobs.another_type,
    lying_jobs.facts_with_more,
    lying_jobs.half_a_character,
    lying_jobs.a_path_outside,
    lying_jobs.another_count,
    lying_jobs.a_digest_that_is_none,
    lying_jobs.a_path_twice,
    lying_jobs.no_list,
    lying_jobs.a_deep_list,
    lying_jobs.a_link_in_the_place_of_the_list,
    lying_jobs.no_object,
]
BUILD = [lying_jobs.another_package, lying_jobs.no_package, lying_jobs.a_package_of_no_format]


def lie(monkeypatch: pytest.MonkeyPatch, function: str, name: str) -> None:
    """Have another function called in the place of one of the table's."""
    table = {**FUNCTIONS, function: f"{lying_jobs.__name__}:{name}"}
    monkeypatch.setattr(workshop, "run_isolated", partial(running.run, functions=table))


@pytest.mark.parametrize("name", [one.__name__ for one in INTAKE])
async def test_an_intake_that_lies_is_a_failed_stage(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    lie(monkeypatch, "unpack", name)
    failed = await failure(world, *GOOD["npm"], last=Stage.INTAKE)
    assert failed.code == "BAD_RESULT", str(failed)


@pytest.mark.parametrize("name", [one.__name__ for one in BUILD])
async def test_a_build_that_lies_is_a_failed_stage(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    made = await world.make(*GOOD["npm"], last=Stage.INTAKE)
    lie(monkeypatch, "build_packages", name)
    with pytest.raises(StageFailed) as caught:
        await made.step(Stage.BUILD)
    assert caught.value.code == "BAD_RESULT", str(caught.value)
