"""``fleetwright tasks``: work for agents, what became of it, and what it said."""

from controlplane.cli.tasks import cancelling, creating, events, reading, replaying
from controlplane.cli.tasks.app import app

__all__ = ["app", "cancelling", "creating", "events", "reading", "replaying"]
