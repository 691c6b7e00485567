"""The ``fleetwright`` command: what operators type on the server's machine, and clients of its API."""
