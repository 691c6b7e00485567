"""Many waits on one timer: each ends in time, and as a timeout of its own would."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from controlplane.transport.patience import OutOfPatienceError, Patience

SHORT = timedelta(milliseconds=1)
LONG = timedelta(hours=1)


async def forever() -> None:
    await asyncio.Event().wait()


async def test_what_is_done_in_time_gives_its_value() -> None:
    assert await Patience(LONG).wait(asyncio.sleep(0, "done")) == "done"


async def test_what_takes_too_long_is_cancelled_and_its_task_goes_on() -> None:
    with pytest.raises(OutOfPatienceError):
        await Patience(SHORT).wait(forever())
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_each_of_many_waits_ends_by_itself() -> None:
    patience = Patience(SHORT)
    ended = await asyncio.gather(*(patience.wait(forever()) for _ in range(20)), return_exceptions=True)
    assert {type(error) for error in ended} == {OutOfPatienceError}
    with pytest.raises(OutOfPatienceError):
        await patience.wait(forever())


async def test_a_wait_that_ended_does_not_end_the_next_one_of_its_task() -> None:
    patience = Patience(SHORT)
    await patience.wait(asyncio.sleep(0))
    with pytest.raises(OutOfPatienceError):
        await patience.wait(forever())


async def test_a_cancellation_from_outside_stays_one() -> None:
    waiting = asyncio.create_task(Patience(LONG).wait(forever()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_cancellation_that_comes_with_the_end_of_patience_wins() -> None:
    patience = Patience(SHORT)

    async def both() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            raise

    waiting = asyncio.create_task(patience.wait(both()))
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_an_error_of_what_is_waited_for_passes() -> None:
    async def failing() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await Patience(LONG).wait(failing())


async def test_what_goes_on_after_its_end_leaves_no_cancellation_behind() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "late"
        return ""

    assert await Patience(SHORT).wait(stubborn()) == "late"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
