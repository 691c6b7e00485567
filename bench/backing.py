"""What a run's servers stand on: SQLite in the data folder, or a PostgreSQL that is started for the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from controlplane.storage.location import Location, Postgres
from controlplane.trust.layout import DATABASE
from devtools.postgres import PostgresServer


@dataclass
class Backing:
    """A database for each site, and how many processes serve it; without ``postgres`` one, on SQLite."""

    postgres: PostgresServer | None = None
    gateways: int = 1
    _numbers: Iterator[int] = field(default_factory=lambda: count(1), init=False)
    _urls: dict[Path, str] = field(default_factory=dict, init=False)

    @property
    def name(self) -> str:
        """What results of a run are kept under."""
        if self.postgres is None:
            return "sqlite"
        return "postgresql" if self.gateways == 1 else f"postgresql-{self.gateways}-gateways"

    @property
    def words(self) -> str:
        """The same for people."""
        if self.postgres is None:
            return "one process on SQLite"
        if self.gateways == 1:
            return "one process on PostgreSQL"
        return f"{self.gateways} gateways on PostgreSQL, and a process each for calls and for schedules"

    def location(self, folder: Path) -> Location:
        """Return the database of the site in ``folder``, which has none yet the first time."""
        if self.postgres is None:
            return folder / DATABASE
        if folder not in self._urls:
            self._urls[folder] = self.postgres.create_database(f"bench_{next(self._numbers)}")
        return Postgres(self._urls[folder])

    def variables(self, folder: Path) -> Mapping[str, str]:
        """Return what the server of the site in ``folder`` finds in its environment."""
        return {"FLEETWRIGHT_DATABASE_URL": self._urls[folder]} if folder in self._urls else {}

    def arguments(self) -> list[str]:
        """Return what it is told on its command line."""
        return ["--gateways", str(self.gateways)] if self.gateways > 1 else []

    @property
    def pid(self) -> int | None:
        """The database's process, where it has one of its own."""
        return None if self.postgres is None else self.postgres.pid


@contextmanager
def backing(postgres: bool, gateways: int) -> Iterator[Backing]:
    """Yield what a run stands on; a PostgreSQL ends with it."""
    if not postgres:
        yield Backing()
        return
    # The product's buffers are PostgreSQL's: SQLite's are 64 MiB too.
    with PostgresServer() as server:
        yield Backing(server, gateways)
