"""Which denials hold, found out inside the job's process by looking and by trying, before the job begins.

Nothing that was done before is believed here; its reasons only explain what was not found. What is tried
harms nothing where it succeeds: no packet leaves the machine, no file stays behind.
"""

from __future__ import annotations

import errno
import mmap
import os
import resource
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from controlplane.packaging.isolation.confinement import kernel
from controlplane.packaging.isolation.confinement.namespaces import Reasons
from controlplane.packaging.isolation.records import Fact, FactName

_READABLE_ELSEWHERE = ("/etc/passwd", "/proc/version", "/sys/kernel")
_WRITABLE_ELSEWHERE = ("/tmp", "/var/tmp", "/dev/shm", "/")  # noqa: S108 # tried, to find out that it fails
_ADDRESSES = (
    (socket.AF_INET, ("192.0.2.1", 9)),
    (socket.AF_INET, ("127.0.0.1", 9)),
    (socket.AF_INET6, ("2001:db8::1", 9)),
)
"""Addresses for documentation (RFC 5737, RFC 3849), and this machine."""
_TUNNELS = {"tunl0", "sit0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "ip6tnl0", "ip6gre0"}
"""Interfaces that some kernels put, switched off, into every new network."""


@dataclass(slots=True)
class Situation:
    """What the observer needs to know of the process that it is in."""

    server_uid: int
    limits: Mapping[int, int]
    descriptors: frozenset[int]
    """The open files that the job is meant to have, and those of the observer."""
    variables: frozenset[str]
    """Names that the environment is meant to have."""
    proc: int
    """The process's own folder below /proc, opened before it went out of sight."""
    environment: bytes
    """The variables as the kernel shows them, read while they could be."""
    reasons: Reasons = field(default_factory=dict)


Check = Callable[[Situation], tuple[bool, str]]
"""Returns whether something holds, and what was seen."""


def observe(situation: Situation) -> list[Fact]:
    """Return every fact, in the order of ``FactName``."""
    checks: dict[FactName, Check] = {
        FactName.UID: _uid,
        FactName.NETWORK: _network,
        FactName.MEMORY: _memory,
        FactName.CPU: _cpu,
        FactName.FILES: _files,
        FactName.PROCESSES: _processes,
        FactName.NO_NEW_PRIVS: _no_new_privs,
        FactName.ENVIRONMENT: _environment,
        FactName.CAPABILITIES: _capabilities,
        FactName.DESCRIPTORS: _descriptors,
        FactName.FILESYSTEM: _filesystem,
        FactName.DESCENDANTS: _descendants,
        FactName.SYSTEM_CALLS: _system_calls,
    }
    return [_fact(name, situation, checks[name]) for name in FactName]


def _fact(name: FactName, situation: Situation, check: Check) -> Fact:
    try:
        held, detail = check(situation)
    except OSError as error:
        held, detail = False, f"could not be observed: {error.strerror}"
    reason = situation.reasons.get(name, "")
    return Fact(name, held, detail if held or not reason else f"{detail} ({reason})")


def _uid(situation: Situation) -> tuple[bool, str]:
    users, groups = set(os.getresuid()), set(os.getgroups()) | set(os.getresgid())
    apart = situation.server_uid not in users and 0 not in users and len(groups) == 1 and 0 not in groups
    return apart, f"runs as user {min(users)}, group {', '.join(map(str, sorted(groups)))}"


def _network(situation: Situation) -> tuple[bool, str]:
    lines = _read(situation, "net/dev").splitlines()[2:]
    foreign = {line.split(":", 1)[0].strip() for line in lines} - {"lo"} - _TUNNELS
    answers = [_reach(family, address) for family, address in _ADDRESSES]
    refused = all(answer in (errno.EACCES, errno.EPERM) for answer in answers)
    unreachable = not foreign and all(answers)
    shown = ", ".join(sorted({os.strerror(answer) if answer else "reached" for answer in answers}))
    seen = f"interfaces: {', '.join(sorted(foreign))}" if foreign else "no interface but loopback"
    return refused or unreachable, f"{seen}; connecting: {shown}"


def _reach(family: int, address: tuple[str, int]) -> int:
    """Return the error of connecting; 0 where a packet could have been sent. Datagrams: none is."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as tried:
            tried.connect(address)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _memory(situation: Situation) -> tuple[bool, str]:
    limit = situation.limits[resource.RLIMIT_AS]
    try:
        mmap.mmap(-1, limit, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS).close()
    except (OSError, MemoryError, OverflowError):
        return _at_most(situation, resource.RLIMIT_AS), f"{limit} bytes of address space for each process"
    return False, f"{limit} bytes could be mapped"


def _cpu(situation: Situation) -> tuple[bool, str]:
    limit = situation.limits[resource.RLIMIT_CPU]
    return _at_most(situation, resource.RLIMIT_CPU), f"{limit} s of processor time for each process"


def _files(situation: Situation) -> tuple[bool, str]:
    size, count = situation.limits[resource.RLIMIT_FSIZE], situation.limits[resource.RLIMIT_NOFILE]
    kinds = (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)
    held = all(_at_most(situation, kind) for kind in kinds)
    return held, f"{size} bytes for each file, {count} open files, no core dumps"


def _processes(situation: Situation) -> tuple[bool, str]:
    limit = situation.limits[resource.RLIMIT_NPROC]
    if os.getuid() == 0:
        return False, "the kernel does not count the processes of root"
    return _at_most(situation, resource.RLIMIT_NPROC), f"{limit} processes and threads of its user"


def _at_most(situation: Situation, kind: int) -> bool:
    soft, hard = resource.getrlimit(kind)
    # A process that ignores the signal for its processor time has one second more.
    slack = 1 if kind == resource.RLIMIT_CPU else 0
    return 0 <= soft <= situation.limits[kind] and 0 <= hard <= situation.limits[kind] + slack


def _no_new_privs(_: Situation) -> tuple[bool, str]:
    held = kernel.new_privileges_forbidden()
    return held, "set" if held else "not set"


def _environment(situation: Situation) -> tuple[bool, str]:
    variables = filter(None, situation.environment.split(b"\0"))
    names = {variable.split(b"=", 1)[0].decode("ascii", "replace") for variable in variables}
    return names <= situation.variables, f"variables: {', '.join(sorted(names)) or 'none'}"


def _capabilities(situation: Situation) -> tuple[bool, str]:
    status = _status(situation)
    held = {kind: status.get(kind, "?") for kind in ("CapEff", "CapPrm", "CapInh", "CapAmb")}
    none = all(value.strip("0") == "" for value in held.values())
    return none, "none" if none else ", ".join(f"{kind} {value}" for kind, value in held.items())


def _descriptors(situation: Situation) -> tuple[bool, str]:
    folder = os.open("fd", os.O_RDONLY | os.O_DIRECTORY, dir_fd=situation.proc)
    try:
        found = [int(name) for name in os.listdir(folder)]
    finally:
        os.close(folder)
    # Listing them opened one or two, which are closed again.
    foreign = {number for number in found if _is_open(number)} - situation.descriptors
    return not foreign, f"{len(foreign)} inherited" if foreign else "none inherited"


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _filesystem(_: Situation) -> tuple[bool, str]:
    seen = [path for path in _READABLE_ELSEWHERE if _opens(path, os.O_RDONLY)]
    # A file without a name: it is gone when it is closed.
    written = [path for path in _WRITABLE_ELSEWHERE if _opens(path, os.O_TMPFILE | os.O_WRONLY)]
    if not seen and not written:
        return True, "nothing outside of the scratch folder can be written, nor the machine's own files read"
    return False, "; ".join(
        f"{verb}: {', '.join(paths)}" for verb, paths in (("can read", seen), ("can write", written)) if paths
    )


def _opens(path: str, flags: int) -> bool:
    with suppress(OSError):
        os.close(os.open(path, flags | os.O_CLOEXEC, 0o600))
        return True
    return False


def _descendants(situation: Situation) -> tuple[bool, str]:
    numbers = _status(situation).get("NSpid", "").split()
    held = len(numbers) > 1 and os.getppid() == 1
    return held, "in a process namespace of its own" if held else "sees the processes of the machine"


def _system_calls(situation: Situation) -> tuple[bool, str]:
    held = _status(situation).get("Seccomp") == "2"
    return held, "filtered" if held else "not filtered"


def _status(situation: Situation) -> dict[str, str]:
    pairs = (line.split(":", 1) for line in _read(situation, "status").splitlines() if ":" in line)
    return {name: value.strip() for name, value in pairs}


def _read(situation: Situation, path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY, dir_fd=situation.proc)
    with open(descriptor, encoding="utf-8", errors="replace") as file:
        return file.read()


def unmet(facts: Iterable[Fact], required: Iterable[str]) -> list[Fact]:
    """Return the facts that are required, by value, and do not hold."""
    names = set(required)
    return [fact for fact in facts if fact.name.value in names and not fact.held]


def own_folder() -> int:
    """Open the process's folder below /proc, wherever it will be called something else later."""
    return os.open(Path("/proc") / os.readlink("/proc/self"), os.O_PATH | os.O_DIRECTORY)
