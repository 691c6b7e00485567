"""What every process has below its rooms: settings, clock, metrics, the database and its writer, wake-ups."""

from __future__ import annotations

import hashlib
import os
import secrets
import socket

from controlplane import VERSION
from controlplane.bootstrap.part import Part
from controlplane.clock import Clock, to_micros
from controlplane.observability.metrics import Metrics
from controlplane.preflight import StartRefused
from controlplane.processes.records import ProcessRecord
from controlplane.sessions.rules.strain import Strain
from controlplane.settings import Settings
from controlplane.storage import inspection
from controlplane.storage.location import Location, Postgres, of_settings
from controlplane.storage.notifications import Notifications
from controlplane.storage.opening import open_database
from controlplane.storage.writer import Writer
from controlplane.trust.layout import ServerTrust
from controlplane.wakeups import WakeUps


def location_of(settings: Settings) -> Location:
    """Return where the site's database is. Raises ``StartRefused`` for a URL that cannot be one."""
    try:
        return of_settings(settings)
    except ValueError as error:
        raise StartRefused(f"FLEETWRIGHT_DATABASE_URL: {error}") from None


class Engines:
    """The engines of one process, made on its event loop; ``secret`` signs page tokens.

    ``process`` is what others will know of it. ``alone`` says that no other process can use
    the database, so that nothing has to be asked of others or told to them.
    """

    def __init__(
        self, settings: Settings, trust: ServerTrust, clock: Clock, part: Part | None = None
    ) -> None:
        self.alone = settings.alone
        self.process = ProcessRecord(
            process_id=secrets.token_hex(8),
            roles=tuple(role.value for role in settings.roles),
            host=socket.gethostname(),
            pid=os.getpid(),
            part=part.name if part else "",
            start_time=to_micros(clock.now()),
            lease_expire_time=0,
            addresses={},
            version=VERSION,
            restarts=part.restarts if part else 0,
        )
        self.settings = settings
        self.trust = trust
        self.clock = clock
        self.metrics = Metrics()
        self.location = location_of(settings)
        self.database = open_database(self.location, self.metrics)
        self.wakeups = WakeUps()
        self.notifications: Notifications | None = None
        """What carries wake-ups to other processes and brings theirs; it has to be run."""
        if isinstance(self.location, Postgres):
            self.notifications = Notifications(self.location.conninfo, self.process.process_id, self.wakeups)
            self.wakeups.carried_by(self.notifications)
        self.writer = Writer(self.database, self._observe_commit)
        self.metrics.writer_queue.set_function(lambda: self.writer.queued)
        self._longest_commit = 0.0
        self.secret = self._token_secret()

    def _token_secret(self) -> bytes:
        # Of one history: after a restore, numbers that a watch has passed come again, for other changes.
        history = inspection.history(self.location)
        return hashlib.sha256(b"fleetwright page tokens\0" + history + self.trust.server_key_pem).digest()

    def _observe_commit(self, size: int, seconds: float) -> None:
        self.metrics.group_commit_size.observe(size)
        self.metrics.group_commit_seconds.observe(seconds)
        self._longest_commit = max(self._longest_commit, seconds)

    def strain(self, lag: float) -> Strain:
        """Return how hard this process works since the last look; ``lag`` is its event loop's, in seconds."""
        longest, self._longest_commit = self._longest_commit, 0.0
        return Strain(lag, longest, self.writer.queued)
