"""Named places at which a test can kill or stop an agent's process.

Each place is a line ``failpoints.hit("agent.after_journal")`` in product code,
and costs one dictionary look-up unless it is armed. Armed by the environment of
``fleetwright-agent run`` or ``fleetwright-sim run``, for example
``FLEETWRIGHT_AGENT_FAILPOINTS=agent.after_journal=kill@2``: at the second hit the
process ends as by ``kill -9``, with nothing flushed and nothing handled.
``stop`` in the place of ``kill`` halts it as by ``kill -STOP``, once.

The notation is that of the server's setting ``failpoints``; the code is not
shared, because the two programs share nothing but the contract.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "FLEETWRIGHT_AGENT_FAILPOINTS"
"""Environment variable that the programs read their failpoints from."""

PLACES = {
    "agent.after_welcome": "Welcome received, its nonce not stored",
    "agent.after_nonce": "nonce stored, nothing else done with the Welcome",
    "agent.after_receive": "assignment received, not journalled",
    "agent.after_journal": "attempt journalled, not accepted",
    "agent.after_running": "attempt marked running, its effect not begun",
    "agent.after_effect": "effect done, its result not journalled",
    "agent.after_result": "result journalled, not sent",
    "agent.after_send": "result handed to gRPC, not acknowledged",
    "agent.after_acknowledge": "result acknowledged, its attempt not forgotten",
    "agent.after_forget": "attempt forgotten",
    "agent.after_batch": "telemetry batch handed to gRPC, not acknowledged",
    "agent.after_points": "telemetry acknowledged, its points not forgotten",
    "agent.after_certificate": "renewed certificate stored beside the current one, not used",
    "agent.after_promotion": "renewed certificate welcomed and promoted",
    "agent.install_piece": "a piece of a package is in its file",
    "agent.install_downloaded": "package downloaded, not verified",
    "agent.install_verified": "package verified, nothing of its installation begun",
    "agent.install_staging": "the ledger says that it is unpacked, and it is not",
    "agent.install_staged": "package unpacked, the ledger does not say so",
    "agent.install_switching": "the ledger says that it takes its place, and it has not",
    "agent.install_switched": "package in its place, the ledger does not say so",
    "agent.install_detecting": "package in its place, not looked for",
    "agent.install_restoring": "package not good, what was before not brought back",
    "agent.install_restored": "what was before brought back, the ledger does not say so",
    "agent.install_committing": "package good, the ledger does not say that it is installed",
    "agent.install_committed": "package installed, the operation not ended",
    "agent.install_ended": "operation ended, its result not given to the journal",
}
"""Every place, and where an agent stands there."""

_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}

_armed: dict[str, tuple[signal.Signals, int]] = {}


def arm(specification: str) -> None:
    """Arm failpoints from ``name=kill@N[,name=stop@N…]``; replaces what was armed.

    Raises ``ValueError`` for a name that no code has or a form that is not this, and
    arms nothing then.
    """
    wanted: dict[str, tuple[signal.Signals, int]] = {}
    for part in filter(None, specification.split(",")):
        name, _, action = part.partition("=")
        verb, _, count = action.partition("@")
        if name not in PLACES or verb not in _SIGNALS or not count.isdecimal() or int(count) < 1:
            raise ValueError(
                f"{VARIABLE}: {part!r} is not NAME=kill@N or NAME=stop@N with N from 1 and NAME one of "
                f"{', '.join(PLACES)}"
            )
        wanted[name] = (_SIGNALS[verb], int(count))
    _armed.clear()
    _armed.update(wanted)


def hit(name: str) -> None:
    """Pass the place ``name``; signals this process where it is armed and its count is reached."""
    armed = _armed.get(name)
    if armed is None:
        return
    number, left = armed
    if left > 1:
        _armed[name] = number, left - 1
        return
    del _armed[name]
    os.kill(os.getpid(), number)
