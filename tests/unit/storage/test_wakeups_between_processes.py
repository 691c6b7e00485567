"""What is told to other processes, and in which form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.storage.notifications import PAYLOAD_BYTES, decode, encode
from controlplane.wakeups import News, WakeUps

names = st.sets(st.from_regex(r"[a-z0-9._-]{1,63}", fullmatch=True), max_size=200)
news = st.builds(
    News,
    topics=st.sets(st.sampled_from(["agents", "tasks", "telemetry", "denials"])),
    working=names,
    stopping=names,
    sessions=st.dictionaries(
        st.from_regex(r"[a-z0-9-]{1,63}", fullmatch=True), st.integers(1, 2**62), max_size=50
    ),
    everything=st.booleans(),
)


@given(news)
def test_a_message_fits_and_says_no_less_than_was_told(told: News) -> None:
    payload = encode("me", told)
    assert len(payload.encode()) <= PAYLOAD_BYTES
    sender, heard = decode(payload)
    assert sender == "me"
    assert heard.topics == told.topics
    assert heard.everything or heard == told


def test_more_agents_than_fit_are_told_as_everything() -> None:
    many = News(working={f"agent-{number}" for number in range(1_000)})
    assert decode(encode("me", many))[1] == News(everything=True)


@pytest.mark.parametrize(
    "payload", ["", "x", "[]", "{}", '{"from": "a", "sessions": 3}', '{"from":"a","topics":1}']
)
def test_what_cannot_be_read_says_look_at_all(payload: str) -> None:
    assert decode(payload) == ("", News(everything=True))


def test_news_are_told_as_one_with_the_newest_session() -> None:
    told = News(working={"a"}, sessions={"a": 2})
    told.add(News(topics={"t"}, stopping={"b"}, sessions={"a": 1, "b": 3}))
    assert told == News(topics={"t"}, working={"a"}, stopping={"b"}, sessions={"a": 2, "b": 3})


class Ear:
    """A process that notes what it hears, and what it would tell others."""

    def __init__(self) -> None:
        self.wakeups = WakeUps(self)
        self.carried: list[News] = []
        self.worked: list[tuple[set[str], bool]] = []
        self.sessions: list[Mapping[str, int]] = []
        self.looked = 0
        self.wakeups.on_work.append(self.work)
        self.wakeups.on_sessions.append(self.sessions.append)
        self.wakeups.on_everything.append(self.look)

    def carry(self, news: News) -> None:
        self.carried.append(news)

    def work(self, agent_ids: Iterable[str], stopping: bool) -> None:
        self.worked.append((set(agent_ids), stopping))

    def look(self) -> None:
        self.looked += 1


def test_what_happens_here_is_told_here_and_carried() -> None:
    ear = Ear()
    with ear.wakeups.listening("tasks") as listener:
        ear.wakeups.notify("tasks")
        assert listener._woken.is_set()
    ear.wakeups.wake(["a"])
    ear.wakeups.wake(iter(["b"]), stopping=True)
    ear.wakeups.replaced({"a": 2})
    ear.wakeups.replaced({})
    assert ear.worked == [({"a"}, False), ({"b"}, True)]
    assert ear.sessions == []
    assert ear.carried == [
        News(topics={"tasks"}),
        News(working={"a"}),
        News(stopping={"b"}),
        News(sessions={"a": 2}),
    ]


def test_what_another_process_tells_is_told_here_and_not_carried_on() -> None:
    ear = Ear()
    with ear.wakeups.listening("tasks") as listener:
        told = News(topics={"tasks", "other"}, working={"a"}, stopping={"b"}, sessions={"c": 3})
        ear.wakeups.receive(told)
        assert listener._woken.is_set()
    assert ear.worked == [({"a"}, False), ({"b"}, True)]
    assert ear.sessions == [{"c": 3}]
    assert (ear.looked, ear.carried) == (0, [])


def test_after_a_loss_everyone_looks_at_all() -> None:
    ear = Ear()
    with ear.wakeups.listening("tasks") as one, ear.wakeups.listening("agents") as other:
        ear.wakeups.receive(News(everything=True))
        assert one._woken.is_set()
        assert other._woken.is_set()
    assert ear.looked == 1
