"""Another user, no group, no capability, no way to get one back."""

from __future__ import annotations

import os
import signal

from controlplane.packaging.isolation.confinement import kernel
from controlplane.packaging.isolation.confinement.namespaces import Reasons
from controlplane.packaging.isolation.records import FactName


def give_up(uid: int, gid: int) -> Reasons:
    """Become the user where this is root, and drop all that a user can have; says what could not be done."""
    reasons: Reasons = {}
    steps = (
        (FactName.CAPABILITIES, _drop_bounding),
        (FactName.UID, lambda: _become(uid, gid)),
        (FactName.CAPABILITIES, kernel.drop_capabilities),
        (FactName.NO_NEW_PRIVS, kernel.forbid_new_privileges),
    )
    for fact, step in steps:
        try:
            step()
        except OSError as error:
            reasons.setdefault(fact, f"{error.strerror}")
    # A change of the user ends what was asked for before.
    kernel.die_with_parent(signal.SIGKILL)
    return reasons


def _drop_bounding() -> None:
    if os.geteuid() == 0:
        kernel.drop_bounding_capabilities()


def _become(uid: int, gid: int) -> None:
    if os.geteuid() != 0:
        raise OSError(0, "the server is not root, so its jobs run as its own user")
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
