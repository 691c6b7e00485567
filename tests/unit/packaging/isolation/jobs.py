"""What is run in isolation by the tests: honest jobs, and attacks that say how far they came."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

JSON = None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]

PR_SET_NAME = 15


class OwnError(Exception):
    def __init__(self, code: str, member: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.member = member
        self.message = message


def echo(**given: JSON) -> JSON:
    return given


def read_input(name: str) -> JSON:
    return Path("in", name).read_text(encoding="utf-8")


def list_inputs() -> JSON:
    return [*sorted(str(path) for path in Path("in").rglob("*"))]


def change_input(name: str) -> JSON:
    path = Path("in", name)
    tried: list[JSON] = []
    for attempt in (lambda: path.chmod(0o777), lambda: path.write_text("changed"), path.unlink):
        try:
            attempt()
        except OSError as error:
            tried.append(errno.errorcode[error.errno or 0])
        else:
            tried.append("done")
    return tried


def write_output(name: str, text: str) -> JSON:
    path = Path("out", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


def use_a_temporary_file() -> JSON:
    with tempfile.NamedTemporaryFile() as file:
        return os.path.relpath(file.name)


def whoami() -> JSON:
    return {"uid": os.getuid(), "gid": os.getgid(), "groups": [*os.getgroups()], "pid": os.getpid()}


def variables() -> JSON:
    return dict(os.environ)


def say(lines: int, width: int = 10) -> JSON:
    for number in range(lines):
        print(f"{number}:" + "x" * width)
    return lines


def say_raw(text: str) -> JSON:
    os.write(2, text.encode("latin-1"))
    return None


def say_and_wait(text: str) -> NoReturn:
    print(text)
    while True:
        signal.pause()


def fail_well() -> JSON:
    raise OwnError("TRUNCATED", "data.tar/usr/bin/x", "the member ends early; upload the file again")


def write_and_fail() -> JSON:
    Path("out/half").touch()
    return fail_well()


def fail_badly() -> JSON:
    raise ValueError("an inner thing")


def fail_with(name: str) -> JSON:
    raise {"exit": SystemExit(3), "interrupt": KeyboardInterrupt(), "recursion": RecursionError("deep")}[name]


def eat_memory() -> JSON:
    held = []
    while True:
        held.append(bytearray(10_000_000))


def spin() -> JSON:
    while True:
        pass


def spin_without_listening() -> JSON:
    signal.signal(signal.SIGXCPU, signal.SIG_IGN)
    while True:
        pass


def sleep_without_listening() -> JSON:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    while True:
        time.sleep(60)


def fork_many(most: int) -> JSON:
    """Bounded: the children only wait to be killed."""
    for count in range(most):
        try:
            pid = os.fork()
        except OSError as error:
            return {"started": count, "error": errno.errorcode[error.errno or 0]}
        if pid == 0:
            while True:
                signal.pause()
    return {"started": most, "error": ""}


def _name(name: str) -> None:
    ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode(), 0, 0, 0)


def leave_a_daemon(name: str) -> JSON:
    """Fork twice, in sessions of their own, with signals ignored, and hold on to nothing of the parent."""
    ready, told = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            _name(name)
            os.write(told, b".")
            os.closerange(0, 64)
            while True:
                signal.pause()
        os._exit(0)
    os.read(ready, 1)
    return None


def leave_a_daemon_and_wait(name: str) -> JSON:
    leave_a_daemon(name)
    print("ready")
    while True:
        signal.pause()


def kill_around() -> JSON:
    """Signal the own group, and in a process namespace, where nobody else can be hit, whatever there is."""
    tried: dict[str, JSON] = {}
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    alone = os.getppid() == 1 and os.getpid() == 2
    for name, pid in (("group", 0), ("all", -1), ("parent", 1))[: 3 if alone else 1]:
        try:
            os.kill(pid, signal.SIGTERM)
        except OSError as error:
            tried[name] = errno.errorcode[error.errno or 0]
        else:
            tried[name] = "sent"
    return tried


def kill_group() -> JSON:
    os.kill(0, signal.SIGKILL)
    return None


def fill_file(mebibytes: int) -> JSON:
    with open("out/large", "wb") as file:
        for _ in range(mebibytes):
            file.write(bytes(1 << 20))
    return mebibytes


def fill_many_files(count: int, kibibytes: int) -> JSON:
    for number in range(count):
        Path("out", str(number)).write_bytes(bytes(kibibytes << 10))
    return count


def fill_and_wait(count: int, kibibytes: int) -> JSON:
    fill_many_files(count, kibibytes)
    while True:
        signal.pause()


def dig(depth: int) -> JSON:
    os.chdir("out")
    for _ in range(depth):
        os.mkdir("d")
        os.chdir("d")
    return depth


def close_a_folder() -> JSON:
    Path("out/closed/inner").mkdir(parents=True)
    Path("out/closed/inner/file").write_text("x", encoding="utf-8")
    Path("out/closed/inner").chmod(0)
    Path("out/closed").chmod(0)
    return None


def answer_much(length: int) -> JSON:
    return "x" * length


def answer_what_is_no_json() -> object:
    return {"a": {1, 2}}


def answer_a_number_that_is_none() -> JSON:
    return float("nan")


def answer_raw(text: str, repeated: int = 1, status: int = 0) -> NoReturn:
    """Write past the protocol, to each open file but the log."""
    for descriptor in range(3, 64):
        with suppress(OSError):
            rest = memoryview(text.encode("latin-1") * repeated)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
    os._exit(status)


def end_silently(status: int) -> NoReturn:
    os._exit(status)


def crash() -> JSON:
    os.kill(os.getpid(), signal.SIGSEGV)
    return None


def connect(host: str, port: int) -> JSON:
    """Connect by each kind of socket; returns the error's name, or "connected"."""
    tried: dict[str, JSON] = {}
    for name, kind in (("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)):
        try:
            with socket.socket(socket.AF_INET, kind) as made:
                made.settimeout(1)
                made.connect((host, port))
                tried[name] = "connected"
        except OSError as error:
            tried[name] = errno.errorcode.get(error.errno or 0, type(error).__name__)
    return tried


def connect_locally(path: str) -> JSON:
    """Connect to a socket of the file system, or, with a leading "@", to one without a place there."""
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.connect("\0" + path[1:] if path.startswith("@") else path)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, type(error).__name__)
    return "connected"


def read_file(path: str) -> JSON:
    """Returns the error's name, or "read"; never what stands there."""
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "read"


def write_files(folders: list[str]) -> JSON:
    """Try to make a file in each folder; returns those where it worked."""
    done: list[JSON] = []
    for folder in folders:
        path = Path(folder, f"fleetwright-attack-{os.getpid()}")
        with suppress(OSError):
            path.write_text("x", encoding="utf-8")
            path.unlink()
            done.append(folder)
    return done


def open_many(most: int) -> JSON:
    held = []
    for count in range(most):
        try:
            held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError as error:
            for descriptor in held:
                os.close(descriptor)
            return {"opened": count, "error": errno.errorcode[error.errno or 0]}
    return {"opened": most, "error": ""}


def raise_limits() -> JSON:
    import resource

    raised: list[JSON] = []
    for name in ("RLIMIT_AS", "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_NPROC"):
        with suppress(ValueError, OSError):
            resource.setrlimit(getattr(resource, name), (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            raised.append(name)
    return raised


def become_root() -> JSON:
    done: list[JSON] = []
    attempts: dict[str, Callable[[], None]] = {
        "setuid": lambda: os.setuid(0),
        "setgid": lambda: os.setgid(0),
        "setgroups": lambda: os.setgroups([0]),
        "chroot": lambda: os.chroot("in"),
    }
    for name, attempt in attempts.items():
        with suppress(OSError):
            attempt()
            done.append(name)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x10000000) == 0:
        done.append("unshare")
    if libc.ptrace(16, os.getppid(), None, None) == 0:
        done.append("ptrace")
    return done


def link_out(target: str) -> JSON:
    os.symlink(target, "out/link")
    return None


def make_a_pipe() -> JSON:
    os.mkfifo("out/pipe")
    return None


def name_twice() -> JSON:
    Path("out/one").write_text("x", encoding="utf-8")
    os.link("out/one", "out/two")
    return None


def make_set_user_id() -> JSON:
    Path("out/tool").write_text("x", encoding="utf-8")
    Path("out/tool").chmod(0o6777)
    return None


def execute_from_scratch() -> JSON:
    Path("tmp/tool").write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    Path("tmp/tool").chmod(0o755)
    try:
        os.execv("tmp/tool", ["tool"])
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def import_lazily() -> JSON:
    import decimal
    import sqlite3

    return [decimal.__name__, sqlite3.__name__]


def modules_of_ours() -> JSON:
    large = ("grpc", "cryptography", "sqlalchemy", "asyncio")
    return [*sorted(name for name in sys.modules if name in large)]
