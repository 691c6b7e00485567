"""The group of the commands."""

from controlplane.cli.calling import noun

app = noun(
    "The keys by which packages are released: init, key, status, draft-root, draft-targets, tell, sign, "
    "install.\n\n"
    "Keys of the roles root and targets stay offline, those of snapshot, timestamp and the channels are the "
    "server's. Before a year is over, or when a key is lost, the next root and targets metadata are drafted, "
    "carried from one holder of a key to the next, and brought to the server, which goes on running.\n\n"
    "\b\nExamples:\n"
    "  fleetwright trust init --offline /media/usb/fleetwright-keys\n"
    "  fleetwright trust status\n"
    "  fleetwright trust draft-root --out root-2.json\n"
    "  fleetwright trust sign root-2.json --key /media/usb/root-1.pem\n"
    "  fleetwright trust install root-2.json"
)
