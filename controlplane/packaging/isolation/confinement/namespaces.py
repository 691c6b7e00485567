"""Namespaces: views of the machine that hold this job alone (namespaces(7))."""

from __future__ import annotations

import os
from pathlib import Path

from controlplane.packaging.isolation.confinement import kernel
from controlplane.packaging.isolation.records import FactName

Reasons = dict[FactName, str]
"""Why something was not done, by the fact that it would have made."""

_OF_THE_JOB = (
    (kernel.CLONE_NEWNET, FactName.NETWORK),
    (kernel.CLONE_NEWNS, FactName.FILESYSTEM),
    # Shared memory and the machine's name: nothing stands or falls with them.
    (kernel.CLONE_NEWIPC, None),
    (kernel.CLONE_NEWUTS, None),
)


def enter_for_descendants() -> Reasons:
    """Have the next child be process 1 of a namespace; in a user namespace first where this is not root."""
    try:
        if os.geteuid() != 0:
            _enter_user_namespace()
        kernel.unshare(kernel.CLONE_NEWPID)
    except OSError as error:
        return {FactName.DESCENDANTS: f"no process namespace: {error.strerror}"}
    return {}


def _enter_user_namespace() -> None:
    user, group = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER)
    # The kernel takes a group map of a user without rights only once groups cannot be changed any more.
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")


def enter() -> Reasons:
    """Leave network and mounts of the parent, each where allowed."""
    reasons: Reasons = {}
    for flag, fact in _OF_THE_JOB:
        try:
            kernel.unshare(flag)
        except OSError as error:
            if fact is not None:
                reasons[fact] = f"no namespace: {error.strerror}"
    return reasons
