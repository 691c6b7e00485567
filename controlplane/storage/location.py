"""Where a site's database is: a file of the data folder, or a PostgreSQL server."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from controlplane.settings import Settings
from controlplane.trust.layout import DATABASE

_SECRETS = ("password", "passfile", "sslpassword")


@dataclass(frozen=True, slots=True)
class Postgres:
    """A database of a PostgreSQL server.

    ``conninfo`` is libpq's connection string or URL, and may hold a secret.
    """

    conninfo: str = field(repr=False)

    def __post_init__(self) -> None:
        """Raise ``ValueError``, which repeats nothing of a secret, for what libpq does not understand."""
        try:
            conninfo_to_dict(self.conninfo)
        except psycopg.ProgrammingError:
            raise ValueError("is no connection string that PostgreSQL's own library understands") from None

    def sqlalchemy_url(self) -> str:
        """Return it in the form of SQLAlchemy's own driver for libpq; it may hold a secret."""
        given = conninfo_to_dict(self.conninfo)
        database = quote(str(given.pop("dbname", "") or ""), safe="")
        return f"postgresql+psycopg:///{database}?{urlencode(given)}"

    def __str__(self) -> str:
        shown = {
            name: value for name, value in conninfo_to_dict(self.conninfo).items() if name not in _SECRETS
        }
        return make_conninfo("", **shown) or "PostgreSQL of the environment"


Location = Path | Postgres
"""A file is SQLite's."""


def of_site(database_url: str, embedded: Path) -> Location:
    """Return the location of a site's database: ``embedded`` where ``database_url`` is empty."""
    return Postgres(database_url) if database_url else embedded


def of_settings(settings: Settings) -> Location:
    """Return the location that settings name. Raises ``ValueError`` for a URL that cannot be one."""
    return of_site(settings.database_url.get_secret_value(), settings.data_dir / DATABASE)
