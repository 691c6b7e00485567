"""The data folder and what the server takes of its machine: permissions, disk, open files, ports."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import psutil

from controlplane import preflight
from controlplane.cli.doctor.findings import Finding, fail, ok, skip, warn
from controlplane.preflight import StartRefused
from controlplane.settings import Settings
from controlplane.transport import addresses
from controlplane.trust.layout import Layout

LOW_DISK = 1024 * 1024 * 1024
"""Telemetry of a small fleet for a month; below, it is time to look."""

LOW_INODES = 1_000

_GIB = 1024**3


def folder(settings: Settings) -> Iterator[Finding]:
    """Check that the folder is one of ours and can be written."""
    try:
        preflight.check_folder(settings.data_dir)
    except StartRefused as error:
        yield fail("folder", str(error))
    else:
        yield ok("folder", f"{settings.data_dir} is initialised and can be written")
    if (settings.data_dir / preflight.RESTORING).is_dir():
        yield warn("restore", "one was interrupted: the next start of the server finishes it")


def process(settings: Settings) -> Iterator[Finding]:
    """Say whether a server uses the folder."""
    holder = preflight.holder_of(settings.data_dir)
    if holder is None:
        yield warn("process", "no server runs on this folder: start its service, or `fleetwright serve`")
    else:
        yield ok("process", f"the server runs as process {holder}")


def permissions(settings: Settings) -> Iterator[Finding]:
    """Check that nobody but the folder's owner can read what is secret."""
    layout = Layout(settings.data_dir)
    owner = layout.root.stat().st_uid
    bad = False
    for path in _private(layout):
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            continue
        if found.st_mode & 0o077:
            bad = True
            mode = "700" if stat.S_ISDIR(found.st_mode) else "600"
            what = f"{path}: mode {stat.S_IMODE(found.st_mode):o}"
            if path.suffix == ".key" or path.name == "key.pem":
                yield fail("permissions", f"{what}: others may read this key: chmod {mode} {path}")
            else:
                yield warn("permissions", f"{what}: wider than needed: chmod {mode} {path}")
        if found.st_uid != owner:
            bad = True
            yield fail(
                "permissions",
                f"{path}: belongs to user {found.st_uid} and the folder to {owner}: chown {owner} {path}",
            )
    if not bad:
        yield ok("permissions", "keys, certificates and folders are open to their owner alone")


def _private(layout: Layout) -> Iterator[Path]:
    yield layout.root
    for part in (layout.trust, layout.identities):
        if part.is_dir():
            yield part
            yield from sorted(part.rglob("*"))


def disk(settings: Settings) -> Iterator[Finding]:
    """Check that there is room, by taking some, and that there is more."""
    try:
        preflight.check_disk(settings.data_dir)
    except StartRefused as error:
        yield fail("disk", str(error))
        return
    free = shutil.disk_usage(settings.data_dir).free
    inodes = os.statvfs(settings.data_dir)
    if free < LOW_DISK:
        yield warn(
            "disk",
            f"{free / _GIB:.1f} GiB are free, and below {preflight.MIN_FREE_BYTES >> 20} MiB the server does "
            "not start: free some space, or keep telemetry for less long",
        )
    elif inodes.f_files and inodes.f_favail < LOW_INODES:
        yield warn(
            "disk", f"{inodes.f_favail} files more can be made: remove small files that are not needed"
        )
    else:
        yield ok("disk", f"{free / _GIB:.1f} GiB are free")


def open_files(settings: Settings) -> Iterator[Finding]:
    """Check the limit of the running server's process, or of this one."""
    holder = preflight.holder_of(settings.data_dir)
    whose, pid = ("this shell", 0) if holder is None else (f"process {holder}", _number(holder))
    try:
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    except (PermissionError, ProcessLookupError):
        yield skip("open files", f"the limit of {whose} cannot be read: run as the user of the server")
        return
    try:
        preflight.check_open_files(hard, settings.max_agents)
    except StartRefused as error:
        yield fail("open files", f"{whose}: {error}")
    else:
        limit = "any number of" if hard == resource.RLIM_INFINITY else f"{hard}"
        yield ok(
            "open files", f"{whose} may have {limit} files open, enough for {settings.max_agents} agents"
        )


def _number(text: str) -> int:
    if not text.isdigit():
        raise ProcessLookupError
    return int(text)


def ports(settings: Settings) -> Iterator[Finding]:
    """Check that each port is free, or held by the server of this folder."""
    holder = preflight.holder_of(settings.data_dir)
    listening = _listening()
    for name, host, port in (
        ("agents", settings.bind_host, settings.agents_port),
        ("admin", settings.bind_host, settings.admin_port),
        ("enrollment", settings.bind_host, settings.enrollment_port),
        ("health", settings.health_bind_host, settings.health_port),
    ):
        if port:
            yield _port(name, host, port, settings.health_port, holder, listening)
        else:
            yield skip("ports", f"{name}: the settings take any free port")


def _port(
    name: str, host: str, port: int, health_port: int, holder: str | None, listening: dict[int, int | None]
) -> Finding:
    where = f"{name} {addresses.join(host, port)}"
    error = addresses.bind_error(host, port)
    if error is None:
        if holder is None:
            return ok("ports", f"{where}: free")
        its = sorted(port for port, pid in listening.items() if str(pid) == holder)
        if its == [health_port]:  # the first to open and the last to close
            return warn(
                "ports",
                f"{where}: free: the server, process {holder}, starts or drains: ask again when it has",
            )
        elsewhere = f" but on {', '.join(map(str, its))}" if its else ""
        return warn(
            "ports",
            f"{where}: free, and the server runs: it does not listen here{elsewhere}: run doctor with the "
            "server's settings",
        )
    pid = listening.get(port)
    if error.errno == errno.EADDRINUSE and holder is not None and (pid is None or str(pid) == holder):
        return ok("ports", f"{where}: held by the server, process {holder}")
    taken_by = f" (it is process {pid}, {_program(pid)})" if pid is not None else ""
    return fail("ports", f"{addresses.refused(name, host, port, error)}{taken_by}")


def _listening() -> dict[int, int | None]:
    """Return the process that listens on each TCP port; None where this user may not know it."""
    try:
        found = psutil.net_connections("tcp")
    except psutil.Error:
        return {}
    return {one.laddr.port: one.pid for one in found if one.status == psutil.CONN_LISTEN and one.laddr}


def _program(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return "gone by now"
