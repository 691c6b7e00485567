"""The inventory of this host: operating system, hardware, packages, and one digest of it all."""

from __future__ import annotations

import asyncio
import hashlib
import platform
import re
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import psutil
from fleetwright.v1 import work_pb2

from agent_sim.agent.packages import PackageList, Tell, installed_packages
from agent_sim.agent.rules import printable
from agent_sim.agent.telemetry import mounted_disks

# A result is one message. gRPC's default limit for one is 4 MiB; this leaves room for what surrounds it.
MAX_INVENTORY_BYTES = 3 << 20

_MAX_DISKS = 256
_MAX_INTERFACES = 256
_MAX_ADDRESSES = 64
_MAX_PACKAGES = 50_000
_OS_RELEASE = (Path("/etc/os-release"), Path("/usr/lib/os-release"))
_CPU_INFO = Path("/proc/cpuinfo")


def parse_os_release(text: str) -> dict[str, str]:
    """Read os-release(5): shell-like assignments, values quoted or not, backslash escapes."""
    values = {}
    for line in text.splitlines():
        match = re.fullmatch(r"([A-Z_][A-Z0-9_]*)=(.*)", line.strip())
        if match:
            value = match[2]
            if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
                value = value[1:-1]
            values[match[1]] = re.sub(r"\\([\\\"'$`])", r"\1", value)
    return values


def host_facts() -> work_pb2.HostFacts:
    """Return what identifies the operating system and the machine; unknown texts are empty."""
    release = parse_os_release(next((text for path in _OS_RELEASE if (text := _text(path))), ""))
    return work_pb2.HostFacts(
        hostname=printable(socket.gethostname())[:253],
        os_family=platform.system().lower()[:64],
        os_name=release.get("NAME", platform.system())[:128],
        os_version=release.get("VERSION_ID", "")[:128],
        kernel_version=printable(platform.release())[:128],
        architecture=platform.machine()[:64],
    )


async def take_inventory(include_packages: bool, tell: Tell | None = None) -> work_pb2.InventoryResult:
    """Take the inventory. Never fails: a source that cannot be read stands in ``missing``.

    ``tell`` hears of each source before it is read.
    """
    if tell is not None:
        tell(0, "hardware")
    result = await asyncio.to_thread(_hardware)
    if include_packages:
        _add_packages(result, await installed_packages(tell=tell))
    del result.missing[64:]
    result.digest = inventory_digest(result)
    return result


def inventory_digest(inventory: work_pb2.InventoryResult) -> str:
    """Return the SHA-256, in lower-case hexadecimal, of the inventory without boot_time and digest.

    What is hashed is the serialised message, which for one without maps and
    unknown fields has its fields in the order of their numbers.
    """
    bare = work_pb2.InventoryResult()
    bare.CopyFrom(inventory)
    bare.ClearField("boot_time")
    bare.ClearField("digest")
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def _add_packages(result: work_pb2.InventoryResult, found: PackageList) -> None:
    result.missing.extend(found.missing)
    room = MAX_INVENTORY_BYTES - result.ByteSize()
    for count, package in enumerate(found.packages):
        size = package.ByteSize()
        room -= size + 2 + (size > 127) + (size > 16383)  # The tag, and the length as a varint.
        if room < 0 or count >= _MAX_PACKAGES:
            left_out = len(found.packages) - count
            result.missing.append(f"packages: {left_out} of {len(found.packages)} did not fit")
            return
        result.packages.append(package)


def _hardware() -> work_pb2.InventoryResult:
    result = work_pb2.InventoryResult(
        host=host_facts(), cpu_model=_cpu_model()[:256], cpu_count=psutil.cpu_count() or 0
    )
    for name, source in _HARDWARE.items():
        try:
            source(result)
        except (psutil.Error, OSError, NotImplementedError) as error:
            result.missing.append(f"{name}: {type(error).__name__}")
    return result


def _memory(result: work_pb2.InventoryResult) -> None:
    result.memory_bytes = psutil.virtual_memory().total


def _boot_time(result: work_pb2.InventoryResult) -> None:
    # Whole seconds: the kernel's figure moves by fractions as the clock is adjusted.
    result.boot_time.FromDatetime(datetime.fromtimestamp(int(psutil.boot_time()), UTC))


def _disks(result: work_pb2.InventoryResult) -> None:
    for mount in mounted_disks(_MAX_DISKS):
        try:
            total = psutil.disk_usage(mount.mountpoint).total
        except OSError:
            total = 0
        result.disks.add(
            mount_point=printable(mount.mountpoint)[:1024],
            filesystem=printable(mount.fstype)[:64],
            total_bytes=total,
        )


def _interfaces(result: work_pb2.InventoryResult) -> None:
    found = psutil.net_if_addrs()
    for name in sorted(found)[:_MAX_INTERFACES]:
        addresses = sorted({one.address[:64] for one in found[name] if one.address})
        result.interfaces.add(name=printable(name)[:64], addresses=addresses[:_MAX_ADDRESSES])


_HARDWARE: dict[str, Callable[[work_pb2.InventoryResult], None]] = {
    "memory": _memory,
    "disks": _disks,
    "interfaces": _interfaces,
    "boot time": _boot_time,
}


def _cpu_model() -> str:
    # ARM kernels name no model; the architecture says what there is to say.
    match = re.search(r"^(?:model name|Model|cpu model)\s*:\s*(.+)$", _text(_CPU_INFO), re.MULTILINE)
    return match[1].strip() if match else ""


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""
