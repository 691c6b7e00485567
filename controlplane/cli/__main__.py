"""``python -m controlplane.cli`` is ``fleetwright``, for programs that start it by their interpreter."""

from controlplane.cli.main import main

main()
