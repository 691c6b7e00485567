"""A filter of system calls (seccomp(2)): what reading bytes never needs, and attacks on the kernel do.

Sockets of a network are refused too, so that there is none where no network namespace may be made. It is a
list of what is refused, beside the other walls and not instead of them: foreign programs could not live with
a list of what is allowed.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.packaging.isolation.confinement import kernel

_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2

# Instructions of classic BPF, as <linux/bpf_common.h> composes them.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
# Offsets in struct seccomp_data.
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_ALLOW, _KILL, _ERRNO = 0x7FFF_0000, 0x8000_0000, 0x0005_0000

_X32 = 0x4000_0000
"""Bit of the calls of x86-64's other ABI, whose numbers are not the ones below."""
_NEW_NAMESPACES = (
    kernel.CLONE_NEWUSER
    | kernel.CLONE_NEWNET
    | kernel.CLONE_NEWNS
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUTS
)
# open_tree, move_mount, fsopen, fsconfig, fsmount, fspick, mount_setattr, io_uring_setup, io_uring_enter and
# io_uring_register have one number on every architecture.
_EVERYWHERE = (428, 429, 430, 431, 432, 433, 442, 425, 426, 427)
_CLONE3 = 435


@dataclass(frozen=True, slots=True)
class _Architecture:
    audit: int
    socket: int
    clone: int
    refused: tuple[int, ...]
    """ptrace, process_vm_readv, process_vm_writev, add_key, request_key, keyctl, perf_event_open, bpf,
    userfaultfd, mount, umount2, pivot_root, unshare, setns, open_by_handle_at, init_module, finit_module,
    kexec_load, syslog."""


_ARCHITECTURES = {
    "x86_64": _Architecture(
        0xC000_003E,
        41,
        56,
        (101, 310, 311, 248, 249, 250, 298, 321, 323, 165, 166, 155, 272, 308, 304, 175, 313, 246, 103),
    ),
    "aarch64": _Architecture(
        0xC000_00B7,
        198,
        220,
        (117, 270, 271, 217, 218, 219, 241, 280, 282, 40, 39, 41, 97, 268, 265, 105, 273, 104, 116),
    ),
}


@dataclass(frozen=True, slots=True)
class _Step:
    """One instruction; a test goes on to the next one unless it is told to go to a label."""

    code: int
    value: int
    yes: str = ""
    no: str = ""
    label: str = ""


def install(*, local_sockets: bool) -> None:
    """Filter this process and all below it, for ever; raises ``OSError``. New privileges must be forbidden.

    Sockets within this machine (AF_UNIX) can be made where ``local_sockets`` says so; pairs of them always.
    """
    machine = os.uname().machine
    architecture = _ARCHITECTURES.get(machine)
    if architecture is None or struct.calcsize("P") != 8:
        raise OSError(errno.ENOSYS, f"no filter of system calls for {machine}")
    program = _assembled(_filter(architecture, local_sockets))
    buffer = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: a count, and a pointer aligned to its own size.
    described = ctypes.create_string_buffer(struct.pack("HP", len(program) // 8, ctypes.addressof(buffer)))
    kernel.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(described))


def _filter(architecture: _Architecture, local_sockets: bool) -> list[_Step]:
    refused = (*architecture.refused, *_EVERYWHERE)
    return [
        _Step(_LOAD, _ARCHITECTURE),
        _Step(_EQUAL, architecture.audit, no="kill"),
        _Step(_LOAD, _NUMBER),
        _Step(_AT_LEAST, _X32, yes="refuse"),
        *(_Step(_EQUAL, number, yes="refuse") for number in refused),
        # Its flags stand in memory, which a filter cannot read. The C library then uses clone.
        _Step(_EQUAL, _CLONE3, yes="missing"),
        _Step(_EQUAL, architecture.socket, yes="socket" if local_sockets else "denied"),
        _Step(_EQUAL, architecture.clone, yes="clone"),
        _Step(_RETURN, _ALLOW, label="allowed"),
        _Step(_LOAD, _FIRST_ARGUMENT, label="socket"),
        _Step(_EQUAL, socket.AF_UNIX, yes="let"),
        _Step(_RETURN, _ERRNO | errno.EACCES, label="denied"),
        _Step(_LOAD, _FIRST_ARGUMENT, label="clone"),
        _Step(_ANY_BIT, _NEW_NAMESPACES, yes="refuse"),
        _Step(_RETURN, _ALLOW, label="let"),
        _Step(_RETURN, _ERRNO | errno.EPERM, label="refuse"),
        _Step(_RETURN, _ERRNO | errno.ENOSYS, label="missing"),
        _Step(_RETURN, _KILL, label="kill"),
    ]


def _assembled(steps: Sequence[_Step]) -> bytes:
    places = {step.label: place for place, step in enumerate(steps) if step.label}

    def distance(label: str, place: int) -> int:
        return places[label] - place - 1 if label else 0

    return b"".join(
        struct.pack("HBBI", step.code, distance(step.yes, place), distance(step.no, place), step.value)
        for place, step in enumerate(steps)
    )
