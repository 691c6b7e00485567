"""The order in which a job's process gives things up, and the facts that came of it."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from controlplane.packaging.isolation.confinement import (
    landlock,
    limits,
    namespaces,
    observing,
    own_root,
    privileges,
    system_calls,
)
from controlplane.packaging.isolation.confinement.namespaces import Reasons
from controlplane.packaging.isolation.records import Fact, FactName, IsolationLimits

_LIBRARIES = frozenset({"site-packages", "dist-packages"})
"""Names of folders that hold installed libraries and nothing else (Python's, and Debian's)."""

VARIABLES = frozenset({"LC_ALL"})
"""What the guard is started with; a function's job sees no more."""


@dataclass(frozen=True, slots=True)
class Confinement:
    """What a job's process is to be confined to."""

    scratch: Path
    uid: int
    gid: int
    limits: IsolationLimits
    packages: tuple[str, ...]
    """Top-level packages that the job imports."""
    descriptors: frozenset[int]
    """Open files that stay open."""
    program: int
    """The foreign program that it becomes, as an open file; -1 for none."""


def confine(wanted: Confinement, reasons: Reasons) -> list[Fact]:
    """Give everything up, and return what held; the working folder is the scratch folder then.

    ``reasons`` say what could not be done before. Raises ``OSError`` only where nothing at all could be
    observed or the limits could not be set.
    """
    server_uid = os.geteuid()
    uid = wanted.uid if server_uid == 0 else server_uid
    counts = limits.wanted(wanted.limits, limits.tasks_of(uid))
    with open("/proc/self/environ", "rb") as file:
        environment = file.read()
    proc = observing.own_folder()
    reasons = reasons | namespaces.enter()
    code = [*_interpreter(), *_code(wanted.packages)]
    reasons |= _enter_root(wanted.scratch, code, reasons)
    limits.apply(counts)
    reasons |= privileges.give_up(wanted.uid, wanted.gid)
    reasons = _restrict_paths(wanted, code, reasons, proc)
    # A program may talk to helpers of its own; without a network of its own it would reach those of others.
    reasons |= _filter_system_calls(wanted.program >= 0 and FactName.NETWORK not in reasons)
    situation = observing.Situation(
        server_uid=server_uid,
        limits=counts,
        descriptors=wanted.descriptors | {proc},
        variables=VARIABLES,
        proc=proc,
        environment=environment,
        reasons=reasons,
    )
    try:
        return observing.observe(situation)
    finally:
        os.close(proc)  # it leads to the root that was left


def _enter_root(scratch: Path, code: list[Path], reasons: Reasons) -> Reasons:
    if FactName.FILESYSTEM in reasons:
        return {}
    try:
        own_root.enter(scratch, code)
    except OSError as error:
        os.chdir(scratch)
        return {FactName.FILESYSTEM: f"no root of its own: {error.strerror or error}"}
    importlib.invalidate_caches()
    return {}


def _restrict_paths(wanted: Confinement, code: list[Path], reasons: Reasons, proc: int) -> Reasons:
    """Add what the kernel may deny without mounts: behind the job's own root, or in its place."""
    here = Path(".")
    executable: list[Path | int] = [*map(Path, own_root.SYSTEM), *code]
    if wanted.program >= 0:
        executable.append(wanted.program)
    # ``proc`` is the observer's view of its own process, which has no path any more in a root of its own.
    readable: list[Path | int] = [here, proc]
    writable = [here / own_root.OUTPUTS, here / own_root.TEMPORARY, *map(Path, own_root.DEVICES)]
    try:
        # An import looks at the names beside a package.
        landlock.restrict(executable, readable, writable, {path.parent for path in _code(wanted.packages)})
    except OSError as error:
        before = reasons.get(FactName.FILESYSTEM, "")
        return reasons | {FactName.FILESYSTEM: f"{before}; no Landlock: {error.strerror}".lstrip("; ")}
    return reasons


def interpreter_is_readable() -> bool:
    """Return whether this user can read the interpreter's files, which it imports from as the job goes on."""
    return all(os.access(path, os.R_OK) for path in (os.__file__, __file__))


def _filter_system_calls(local_sockets: bool) -> Reasons:
    try:
        system_calls.install(local_sockets=local_sockets)
    except OSError as error:
        return {FactName.SYSTEM_CALLS: f"{error.strerror}"}
    return {}


def _interpreter() -> list[Path]:
    """Return where the interpreter and its libraries lie, those too that its environment shares."""
    folders = {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix}
    libraries = {folder for folder in sys.path if Path(folder).name in _LIBRARIES}
    return [Path(folder) for folder in sorted(folders | libraries)]


def _code(packages: Iterable[str]) -> list[Path]:
    """Return where the packages stand: in a checkout that is beside other things, which stay out of sight."""
    found: list[Path] = []
    for name in packages:
        with suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(name)
            places = spec.submodule_search_locations if spec else None
            found += [Path(place) for place in places or ([spec.origin] if spec and spec.origin else [])]
    return [path for path in found if path.is_absolute()]
