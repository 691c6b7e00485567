"""Wake-ups: one is enough, none is lost while the listener looks."""

from __future__ import annotations

from datetime import timedelta

from controlplane.wakeups import WakeUps

AT_ONCE = timedelta(0)
LONG = timedelta(seconds=30)


async def test_a_wake_up_that_comes_while_the_listener_looks_is_kept() -> None:
    wakeups = WakeUps()
    with wakeups.listening("tasks") as listener:
        wakeups.notify("tasks")
        assert await listener.wait(LONG)
        assert not await listener.wait(AT_ONCE)


async def test_many_wake_ups_are_kept_as_one() -> None:
    wakeups = WakeUps()
    with wakeups.listening("tasks") as listener:
        for _ in range(3):
            wakeups.notify("tasks")
        assert await listener.wait(LONG)
        assert not await listener.wait(AT_ONCE)


async def test_every_listener_of_a_topic_is_woken_and_no_other() -> None:
    wakeups = WakeUps()
    with (
        wakeups.listening("tasks") as one,
        wakeups.listening("tasks") as two,
        wakeups.listening("agents") as other,
    ):
        wakeups.notify("tasks")
        assert [await one.wait(LONG), await two.wait(LONG), await other.wait(AT_ONCE)] == [True, True, False]


async def test_a_topic_without_listeners_is_forgotten_and_may_be_notified() -> None:
    wakeups = WakeUps()
    with wakeups.listening("tasks") as before:
        pass
    wakeups.notify("tasks")
    assert not await before.wait(AT_ONCE)
    with wakeups.listening("tasks") as listener:
        assert not await listener.wait(AT_ONCE)
        wakeups.notify("tasks")
        assert await listener.wait(LONG)
