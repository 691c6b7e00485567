"""The group of the verbs; each module beside this one adds its own."""

from __future__ import annotations

from controlplane.cli.calling import noun

app = noun(
    "Work for agents: create, list, show, output, events, wait, cancel, replay, watch.\n\n"
    "\b\nExamples:\n"
    "  fleetwright tasks create web-1 --script 'uname -sr' --wait\n"
    "  fleetwright tasks create --selector 'labels.env = prod' --script-file mend.sh\n"
    "  fleetwright tasks list --state FAILED\n"
    "  fleetwright tasks replay --state DEAD\n"
    "  fleetwright tasks show tasks/NAME"
)
