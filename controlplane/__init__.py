"""The Fleetwright server and the ``fleetwright`` command.

Read ``bootstrap/`` next: it builds everything that lives here, and names who
may call whom. Rooms (``agents``, ``identity``, ``tasks``, ``telemetry``,
``sessions``) are capabilities; the rest are engines that they share.
"""

VERSION = "0.1.0"
"""What ``fleetwright --version`` prints and GetServerInfo answers; pyproject.toml says the same."""
