"""What this host measures of itself, and of the agent.

Metric names carry their unit as the last word; the load averages have none.
Counters (bytes read, sent and so on) count from the start of the host: a rate
is for the reader to take.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from datetime import datetime

import psutil
from fleetwright.v1 import work_pb2

from agent_sim.agent.rules import busy_ratio, printable

# A host may have thousands of mounts or interfaces; what is over this is left out of the sample.
MAX_SERIES = 64

_ATTRIBUTE_CHARACTERS = 256
_SKIPPED_DEVICES = ("loop", "ram", "zram")

Reading = tuple[str, float, dict[str, str]]


class HostTelemetry:
    """Measures one host. ``measure`` reads files of the kernel: not for the event loop's thread."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        # psutil's own percentage remembers its last reading for each thread, so in a pool it would
        # compare with nothing; the readings are kept here instead.
        self._cpu_times = psutil.cpu_times()._asdict()
        self._process = psutil.Process()

    def measure(self) -> list[work_pb2.TelemetryPoint]:
        """Measure once. A source that the host does not have, or that fails, leaves its points out."""
        now = self._clock()
        points = []
        for source in (self._cpu, _memory, _disks, _disk_transfer, _network, _uptime, self._agent):
            for metric, value, attributes in _readings(source):
                if math.isfinite(value):
                    printed = {key: printable(name) for key, name in attributes.items()}
                    point = work_pb2.TelemetryPoint(metric=metric, value=value, attributes=printed)
                    point.time.FromDatetime(now)
                    points.append(point)
        return points

    def _cpu(self) -> Iterator[Reading]:
        before, self._cpu_times = self._cpu_times, psutil.cpu_times()._asdict()
        ratio = busy_ratio(before, self._cpu_times)
        if ratio is not None:
            yield "cpu.used_ratio", ratio, {}
        for minutes, load in zip((1, 5, 15), psutil.getloadavg(), strict=True):
            yield f"cpu.load{minutes}", load, {}

    def _agent(self) -> Iterator[Reading]:
        yield "agent.rss_bytes", float(self._process.memory_info().rss), {}


def _readings(source: Callable[[], Iterator[Reading]]) -> list[Reading]:
    readings = []
    try:
        for reading in source():
            readings.append(reading)  # noqa: PERF402, RUF100 - what was read before a failure counts
    except (psutil.Error, OSError, NotImplementedError):
        return readings
    return readings


def _memory() -> Iterator[Reading]:
    memory = psutil.virtual_memory()
    yield "memory.total_bytes", float(memory.total), {}
    yield "memory.available_bytes", float(memory.available), {}
    yield "memory.used_bytes", float(memory.total - memory.available), {}
    swap = psutil.swap_memory()
    yield "swap.used_bytes", float(swap.used), {}


def _disks() -> Iterator[Reading]:
    for mount in mounted_disks():
        try:
            usage = psutil.disk_usage(mount.mountpoint)
        except OSError:
            continue  # Unmounted meanwhile, or not ours to see.
        attributes = {"mount": mount.mountpoint[:_ATTRIBUTE_CHARACTERS]}
        yield "disk.used_bytes", float(usage.used), attributes
        yield "disk.available_bytes", float(usage.free), attributes
        # Of what users may fill, as df(1) has it: what is kept for root counts as neither.
        yield "disk.used_ratio", usage.used / max(1, usage.used + usage.free), attributes


def mounted_disks(limit: int = MAX_SERIES) -> list[psutil._ntuples.sdiskpart]:
    """Return file systems on devices, each device once, under its shortest mount point."""
    by_device: dict[str, psutil._ntuples.sdiskpart] = {}
    for mount in sorted(psutil.disk_partitions(all=False), key=lambda one: (len(one.mountpoint), one)):
        by_device.setdefault(mount.device, mount)
    return sorted(by_device.values(), key=lambda one: one.mountpoint)[:limit]


def _disk_transfer() -> Iterator[Reading]:
    counters = psutil.disk_io_counters(perdisk=True) or {}
    devices = sorted(name for name in counters if not name.startswith(_SKIPPED_DEVICES))
    for name in devices[:MAX_SERIES]:
        yield "disk.read_bytes", float(counters[name].read_bytes), {"device": name}
        yield "disk.written_bytes", float(counters[name].write_bytes), {"device": name}


def _network() -> Iterator[Reading]:
    counters = psutil.net_io_counters(pernic=True)
    for name in sorted(set(counters) - {"lo"})[:MAX_SERIES]:
        attributes = {"interface": name}
        yield "network.received_bytes", float(counters[name].bytes_recv), attributes
        yield "network.sent_bytes", float(counters[name].bytes_sent), attributes
        yield "network.errors_count", float(counters[name].errin + counters[name].errout), attributes


def _uptime() -> Iterator[Reading]:
    # Includes the time asleep, and does not move when the clock on the wall is set.
    yield "uptime.seconds", time.clock_gettime(time.CLOCK_BOOTTIME), {}
