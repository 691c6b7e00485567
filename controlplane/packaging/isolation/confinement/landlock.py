"""Landlock: which paths a process can open, for kernels and containers in which no mounts may be made.

Any process may ask the kernel for it, and nothing takes it back. It stands behind a root of the job's own
where there is one. It also keeps signals and sockets without a place in the file system within the job, where
the kernel is new enough (landlock(7)); that a file is there, and its size, can still be seen.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from controlplane.packaging.isolation.confinement import kernel

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG = 1 << 4, 1 << 5, 1 << 7, 1 << 8
_MAKE_SOCK, _MAKE_FIFO, _MAKE_SYM = 1 << 9, 1 << 10, 1 << 12
_REFER, _TRUNCATE = 1 << 13, 1 << 14

_FILE_SYSTEM = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
"""All rights over files that a version of the interface knows."""
_NETWORK = 0b11
"""Binding and connecting TCP sockets, from version 4 on."""
_SCOPES = 0b11
"""Abstract sockets, and signals, from version 6 on."""

_READ = _EXECUTE | _READ_FILE | _READ_DIR
_WRITE = (
    _WRITE_FILE
    | _READ_FILE
    | _READ_DIR
    | _REMOVE_DIR
    | _REMOVE_FILE
    | _MAKE_DIR
    | _MAKE_REG
    | _MAKE_SOCK
    | _MAKE_FIFO
    | _MAKE_SYM
    | _REFER
    | _TRUNCATE
)
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE


def restrict(
    executable: Iterable[Path | int],
    readable: Iterable[Path | int],
    writable: Iterable[Path | int],
    listed: Iterable[Path | int],
) -> None:
    """Let this process and all below it open these paths alone, or folders that are open; raises ``OSError``.

    Nothing that is ``writable`` or merely ``readable`` can be executed; of what is ``listed``, only the names
    in folders can be read. Paths that are missing are left out.
    """
    version = kernel.system_call(_CREATE_RULESET, 0, 0, _VERSION)
    handled = _FILE_SYSTEM[min(version, max(_FILE_SYSTEM))]
    attributes = struct.pack("QQQ", handled, _NETWORK if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    length = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = kernel.system_call(_CREATE_RULESET, attributes, length, 0)
    try:
        given = (
            (executable, _READ),
            (readable, _READ & ~_EXECUTE),
            (writable, _WRITE),
            (listed, _READ_DIR),
        )
        for paths, rights in given:
            for path in paths:
                with suppress(FileNotFoundError, PermissionError):
                    _allow(ruleset, path, rights & handled)
        kernel.system_call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: Path | int, rights: int) -> None:
    if isinstance(path, int):
        _allow_open(ruleset, path, rights)
        return
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        _allow_open(ruleset, descriptor, rights)
    finally:
        os.close(descriptor)


def _allow_open(ruleset: int, descriptor: int, rights: int) -> None:
    if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
        rights &= _OF_A_FILE
    # struct landlock_path_beneath_attr is packed.
    kernel.system_call(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("<Qi", rights, descriptor), 0)
