"""The measures: each brings up what it needs and gives windows for one or more budgets.

Yardstick and product take turns within a measure, so that a noisy neighbour meets both. Rates are
for a CPU second of the server, all of its processes and its database counted.
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from bench import machine, statements
from bench.children import Child
from bench.copying import Copying
from bench.figures import Window, percentile
from bench.stage import WANTED, Side, Stage


@dataclass
class Found:
    """What a measure found: windows by the name of their budget, notes, and what a profile needs."""

    windows: dict[str, list[Window]] = field(default_factory=lambda: defaultdict(list))
    notes: dict[str, str] = field(default_factory=dict)
    void: set[str] = field(default_factory=set)
    """Budgets that are missed whatever their figures say; the note says why."""
    again: Callable[[float], None] | None = None
    """Begins the load once more, for so many seconds; its answer is to be heard."""
    product: Side | None = None


Measure = Callable[[Stage], Found]


def heartbeats(stage: Stage) -> Found:
    """Beats as fast as they are answered, of as many agents as keep the server busy within its limits."""
    agents = stage.size(400, 50)
    seconds = stage.size(4, 1)
    folder = stage.site(agents)
    # The shortest interval that there is: a beat each 50 ms is then within every agent's allowance. The
    # yardstick has no such limit, and does best without a pace.
    pace = 0.05
    fast = {"FLEETWRIGHT_HEARTBEAT_INTERVAL": "100ms", "FLEETWRIGHT_MAX_BEATS_PER_SECOND": "100000"}
    bare, product = stage.yardstick(folder), stage.product(folder, agents, fast)
    found = Found(product=product)
    stage.say(f"connecting {agents:,} agents twice")
    for side in (bare, product):
        side.connect(agents)

    def storm(side: Side, pace: float) -> float:
        return side.rate("beats", do="beats", agents=agents, pace=pace, seconds=seconds)

    for window in range(stage.windows + 1):
        stage.say(f"heartbeats: window {window} of {stage.windows}" if window else "heartbeats: warming up")
        pair = Window(storm(bare, 0), storm(product, pace))
        if window:
            found.windows["heartbeats"].append(pair)
    stage.interrupted(product)
    found.again = lambda length: product.load.tell(do="beats", agents=agents, pace=0.05, seconds=length + 1)
    bare.stop()
    return found


def tasks(stage: Stage) -> Found:
    """Durable tasks against bare echoes: a fixed amount of work, and the CPU that all of it took."""
    agents, number = stage.size(200, 20), stage.size(2_000, 100)
    seconds = stage.size(3, 1)
    folder = stage.site(agents)
    bare, product = stage.yardstick(folder), stage.product(folder, agents)
    found = Found(product=product)
    for side in (bare, product):
        side.connect(agents)
    shares: list[float] = []

    def echoes() -> float:
        return bare.rate("beats", do="beats", agents=50, pace=0, seconds=seconds)

    def work() -> float:
        before, began = product.load.cpu(), time.monotonic()
        rate = product.rate("tasks", do="work", tasks=number, outstanding=256)
        shares.append((product.load.cpu() - before) / (time.monotonic() - began))
        return rate

    def batches() -> float:
        return product.rate("tasks", do="batches", number=number // agents, selector="labels.site = bench")

    for window in range(stage.windows + 1):
        stage.say(f"tasks: window {window} of {stage.windows}" if window else "tasks: warming up")
        yardstick, one_by_one, batch = echoes(), work(), batches()
        if window:
            found.windows["tasks"].append(Window(yardstick, one_by_one))
            found.windows["tasks-batch"].append(Window(yardstick, batch))
    stage.interrupted(product)
    found.notes["tasks"] = (
        f"{agents} agents, 256 tasks under way; clients used {median(shares):.0%} of a core"
    )
    found.notes["tasks-batch"] = f"{agents} tasks a call"
    found.again = lambda length: product.load.tell(
        do="work", tasks=max(number, round(length * 1_000)), outstanding=256
    )
    bare.stop()
    return found


def growth(stage: Stage) -> Found:
    """Memory and CPU of a fleet that grows to 5,000 agents, in steps that take turns."""
    few, step = stage.size(1_000, 50), stage.size(500, 25)
    # What a profile connects comes on top: enough for all of its seconds.
    more = stage.size(2_500, 25)
    many = stage.agents(5_000 + more, 150 + more) // step * step - more
    folder = stage.site(many + more)
    bare, product = stage.yardstick(folder), stage.product(folder, many + more)
    sides = (bare, product)
    found = Found(product=product)
    rss: dict[int, list[int]] = {}
    for connected in range(step, many + 1, step):
        stage.say(f"connecting {connected:,} of {many:,} agents twice")
        pair = Window(bare.connect(step), product.connect(step))
        if connected > few:
            found.windows["connects"].append(pair)
        if connected in (few, many):
            _settle(stage, sides)
            rss[connected] = [_rss(side) for side in sides]
    slopes = [(rss[many][side] - rss[few][side]) / (many - few) / 1024 for side in range(2)]
    found.windows["memory"].append(Window(slopes[0], slopes[1]))
    found.notes["memory"] = f"{few:,} to {many:,} agents"
    stage.interrupted(product)
    found.again = lambda _: product.load.tell(do="connect", number=more)
    bare.stop()
    return found


def fleet(stage: Stage) -> Found:
    """A fleet of 1,000, then the most that fits: what each agent costs, and dispatch among them all."""
    few, many = stage.size(1_000, 50), stage.agents(WANTED, 200)
    found = Found()
    small = stage.product(stage.site(few), few)
    empty = median(_idle(stage, small, "no agents"))
    base = _rss(small)
    _connect(stage, small, few)
    light = [cpu - empty for cpu in _idle(stage, small, f"{few:,} agents")]
    light_memory = (_rss(small) - base) / few
    small.stop()
    folder = stage.site(many)
    bare, product = stage.yardstick(folder), stage.product(folder, many)
    found.product = product
    _connect(stage, bare, few)
    _connect(stage, product, many)
    heavy = [cpu - empty for cpu in _idle(stage, product, f"{many:,} agents")]
    heavy_memory = (_rss(product) - base) / many
    found.windows["scale-memory"].append(Window(light_memory / 1024, heavy_memory / 1024))
    for one, all_ in zip(light, heavy, strict=True):
        found.windows["scale-cpu"].append(Window(one / few * 1e6, all_ / many * 1e6))
    _dispatch(stage, bare, product, found)
    if many < WANTED:
        found.void.update(_DISPATCH.values())
    # The budget is for more than one process holds; a figure for less is no proof of it.
    found.void.update(("scale-memory", "scale-cpu"))
    stage.interrupted(product)
    note = (
        f"{few:,} against {many:,} agents, the most for one process here; the budget is for 50,000, which "
        "are not measured, so it counts as missed"
    )
    for name in _DISPATCH.values():
        found.notes[name] = f"{many:,} agents connected, {found.notes[name]}"
    found.notes.update({"scale-memory": note, "scale-cpu": note})
    found.again = lambda length: product.load.tell(do="dispatch", rate=_RATE, seconds=length)
    bare.stop()
    return found


_RATE = 200.0
_DISPATCH = {50: "dispatch-p50", 99: "dispatch-p99"}
_KEPT_UP = 0.97
"""Share of the wanted rate below which the rate was not held."""


def _dispatch(stage: Stage, bare: Side, product: Side, found: Found) -> None:
    rate, seconds = (_RATE, 10.0) if not stage.quick else (20.0, 2.0)
    shares, rates = [], []
    refused: Counter[str] = Counter()
    for window in range(stage.windows + 1):
        stage.say(f"dispatch: window {window} of {stage.windows}" if window else "dispatch: warming up")
        echoes = bare.load.ask(do="echo", rate=rate, seconds=seconds / 4)["milliseconds"]
        before = product.server.cpu()
        dispatched = product.load.ask(do="dispatch", rate=rate, seconds=seconds)
        if window:
            shares.append((product.server.cpu() - before) / dispatched["seconds"])
            rates.append(dispatched["created_per_second"])
            refused.update(dispatched["refused"])
            for percent, name in _DISPATCH.items():
                waits = percentile(dispatched["milliseconds"], percent)
                found.windows[name].append(Window(percentile(echoes, percent), waits))
    note = (
        f"{rate:g} tasks a second wanted, {median(rates):.0f} taken, the server at {median(shares):.0%} of a "
        "core; create_time is read before the commit, so the commit is in it"
    )
    if refused:
        note += f"; refused: {dict(refused)}"
    found.notes.update(dict.fromkeys(_DISPATCH.values(), note))
    if median(rates) < rate * _KEPT_UP or refused:
        found.void.update(_DISPATCH.values())


def statement(stage: Stage) -> Found:
    """One small SQLite read through our driver."""
    stage.say("statements")
    found = Found()
    for _ in range(stage.size(3, 1)):
        found.windows["statement"].append(statements.measure(stage.size(3_000, 300)))
    return found


def restart(stage: Stage) -> Found:
    """A server that is killed and comes back: how soon all of its agents have a session again."""
    agents = stage.size(2_000, 50)
    folder = stage.site(agents)
    bare, product = stage.yardstick(folder), stage.product(folder, agents)
    found = Found(product=product)
    for side in (bare, product):
        stage.say(f"connecting {agents:,} agents to the {side.server.name}")
        side.load.ask(do="come", number=agents)
    outages: list[float] = []
    slots: list[int] = []
    # A quick run has no window to warm up: each takes as long as backoffs do, however few agents there are.
    for window in range(int(stage.quick), stage.windows + 1):
        stage.say(f"restart: window {window} of {stage.windows}" if window else "restart: warming up")
        # The yardstick is away for as long as the product was, so that backoffs have grown as far.
        away, value, refused = _outage(stage, product, 0)
        _, yardstick, _ = _outage(stage, bare, away)
        if window:
            outages.append(away)
            slots.append(refused)
            for name, one, other in zip(("return-99", "return-100"), yardstick, value, strict=True):
                found.windows[name].append(Window(one, other))
    note = (
        f"{agents:,} agents, away for {median(outages):.1f} s; {median(slots):g} times one was given a slot"
    )
    found.notes.update({"return-99": note, "return-100": note})
    bare.stop()
    return found


def _outage(stage: Stage, side: Side, away: float) -> tuple[float, tuple[float, float], int]:
    """Kill a server and start it again, a yardstick not before it was ``away`` for so many seconds.

    Returns for how long it was, after how many seconds 99% and all agents were back, and how many
    Hellos were refused.
    """
    side.quiet()
    side.load.ask(do="forget")
    killed = time.monotonic()
    side.kill()
    listens = side.restart(killed + away)
    answer = side.load.ask(do="returned", within=150)
    back = [moment - listens for moment in answer["welcomed"]]
    most, last = back[max(0, round(0.99 * len(back)) - 1)], back[-1]
    stage.say(
        f"{side.server.name}: listens {listens - killed:.1f} s after the kill, 99% back after {most:.1f} s, "
        f"all after {last:.1f} s, {answer['refused']:,} refusals"
    )
    return listens - killed, (most, last), answer["refused"]


def telemetry(stage: Stage) -> Found:
    """Points through streams as fast as they are taken, and the same rows by a bare COPY."""
    postgres = stage.backing.postgres
    assert postgres is not None
    agents, points = stage.size(50, 5), stage.size(100_000, 2_000)
    folder = stage.site(agents)
    product = stage.product(folder, agents, {"FLEETWRIGHT_TELEMETRY_RATE": "10000000"})
    product.connect(agents)
    copying = Copying(postgres, agents, points)
    found = Found(product=product)
    seconds: list[tuple[float, float]] = []
    for window in range(stage.windows + 1):
        stage.say(f"telemetry: window {window} of {stage.windows}" if window else "telemetry: warming up")
        product.quiet()
        bare, copied = copying.run(lambda: machine.cpu_of_family(postgres.pid))
        before = product.server.cpu()
        stored = product.load.ask(do="replay", points=points // agents, most=100)
        used = product.server.cpu() - before
        if window:
            seconds.append((copied, stored["seconds"]))
            found.windows["telemetry"].append(Window(points / bare, stored["points"] / used))
    copied, streamed = (median(times) for times in zip(*seconds, strict=True))
    found.notes["telemetry"] = (
        f"{agents} agents; {points / streamed:,.0f} points a second of time beside the COPY's "
        f"{points / copied:,.0f}, clients on the same cores"
    )
    found.again = lambda length: product.load.tell(
        do="replay", points=round(length * _PROFILED_RATE / agents), most=100
    )
    return found


def _both(echo: Mapping[str, Any]) -> str:
    found = echo["milliseconds"]
    return f"p50 {percentile(found, 50):.1f} ms, p99 {percentile(found, 99):.1f} ms"


_PROFILED_RATE = 8_000


def replay(stage: Stage) -> Found:
    """A backlog of telemetry that some agents replay while others send their heartbeats."""
    few, others, points = stage.size(50, 5), stage.size(1_000, 50), stage.size(100_000, 2_000)
    rate, seconds = stage.size(200, 50), stage.size(4, 1)
    folder = stage.site(few + others)
    product = stage.product(folder, few + others)
    found = Found(product=product)
    product.connect(others)
    backlog: Child = stage.load(folder, product.port)
    backlog.ask(do="skip", number=others)
    backlog.ask(do="connect", number=few)
    unanswered, worst, answers = 0, 0.0, []
    for window in range(stage.windows + 1):
        stage.say(f"replay: window {window} of {stage.windows}" if window else "replay: warming up")
        product.quiet()
        before = product.load.ask(do="echo", rate=rate, seconds=seconds)
        backlog.tell(do="replay", points=points // few)
        time.sleep(0.1)
        during = product.load.ask(do="echo", rate=rate, seconds=seconds)
        replayed = backlog.hear()
        stage.say(
            f"{replayed['points']:,} points in {replayed['seconds']:.1f} s, {replayed['batches']:,} batches, "
            f"least budget {replayed['least_budget']:,}; heartbeats before {_both(before)}, "
            f"during {_both(during)}"
        )
        if window:
            answers.append(replayed["points"] / replayed["batches"])
            unanswered += during["unanswered"]
            worst = max(worst, *during["milliseconds"])
            found.windows["replay-rate"].append(Window(None, replayed["points"] / replayed["seconds"]))
            found.windows["replay-beats"].append(
                Window(percentile(before["milliseconds"], 99), percentile(during["milliseconds"], 99))
            )
    stage.interrupted(product)
    found.notes["replay-rate"] = f"{median(answers):.0f} points a batch"
    found.notes["replay-beats"] = (
        f"{rate:g} a second timed beside those that were due; {unanswered} unanswered, "
        f"the longest {worst:.0f} ms"
    )
    found.product = dataclasses.replace(product, load=backlog)
    found.again = lambda length: backlog.tell(do="replay", points=round(length * _PROFILED_RATE / few))
    if unanswered:
        found.void.add("replay-beats")
    return found


def _connect(stage: Stage, side: Side, agents: int) -> None:
    stage.say(f"connecting {agents:,} agents to the {side.server.name}")
    side.connect(agents)
    side.quiet()


def _settle(stage: Stage, sides: tuple[Side, ...]) -> None:
    for side in sides:
        side.quiet()
    # Every agent has beaten once by then, and what that allocates is there.
    stage.say("letting the fleet idle")
    time.sleep(stage.size(12, 1))


def _rss(side: Side) -> int:
    return side.server.rss()


def _idle(stage: Stage, side: Side, what: str) -> list[float]:
    """Return the CPU seconds of a second, in windows in which nobody asks for anything."""
    found = []
    # As long as the longest interval of beats and schedules.
    seconds = stage.size(10, 1)
    for window in range(stage.windows // 2 + 1):
        stage.say(f"idling with {what}: window {window + 1} of {stage.windows // 2 + 1}")
        before, began = side.server.cpu(), time.monotonic()
        time.sleep(seconds)
        found.append((side.server.cpu() - before) / (time.monotonic() - began))
    return found


MEASURES: Mapping[str, Measure] = {
    "telemetry": telemetry,
    "heartbeats": heartbeats,
    "tasks": tasks,
    "growth": growth,
    "fleet": fleet,
    "restart": restart,
    "replay": replay,
    "statement": statement,
}
