"""A fixed set of chDB connections, each lent to one request at a time.

No thread owns a connection: chDB deadlocks the process when a connection is closed by a thread that is ending. A
request borrows one, has its settings applied by `SET`, and gives it back; the next borrower pays only for what differs.
"""

from __future__ import annotations

import contextlib
import importlib
import tempfile
import threading
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Protocol, cast

from embedded.clickhouse.errors import (
    NOT_ENOUGH_SPACE,
    TOO_MANY_SIMULTANEOUS_QUERIES,
    from_engine,
    refusal,
)
from embedded.clickhouse.statements import insert_from_file

DEFAULT_DATABASE = "default"
_chdb: Any = importlib.import_module("chdb._chdb")  # an extension module without types


class View(Protocol):
    """A result's bytes in the engine's own memory: valid while the result lives."""

    def view(self) -> memoryview: ...


class Result(Protocol):
    """What chDB answers, with its counts."""

    def get_memview(self) -> View: ...
    def rows_read(self) -> int: ...
    def storage_rows_read(self) -> int: ...
    def storage_bytes_read(self) -> int: ...
    def rows_written(self) -> int: ...
    def bytes_written(self) -> int: ...


class RawConnection(Protocol):
    """The part of chDB's connection that is used here."""

    def query(self, query_str: str, format: str, *, params: dict[str, str] = ...) -> Result: ...  # noqa: A002 - chDB's name
    def send_query(self, query_str: str, format: str, *, params: dict[str, str] = ...) -> object: ...  # noqa: A002
    def streaming_fetch_result(self, streaming_result: object) -> Result | None: ...
    def streaming_cancel_query(self, streaming_result: object) -> None: ...
    def close(self) -> None: ...


def leave_signals_alone() -> None:
    """Keep the engine from taking SIGTERM and others for itself; call it before the first connection."""
    _chdb.set_signal_handlers_enabled(0)


def quoted(text: str) -> str:
    """The text as a ClickHouse string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quoted_name(name: str) -> str:
    """The text as a ClickHouse identifier."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


class Session:
    """One chDB connection with the settings and database that it has at the moment.

    `mark` is the connection's own log_comment: the engine gives queries ids of its own, and this finds the one that
    runs here, so that KILL QUERY can name it.
    """

    def __init__(self, path: Path, mark: str, profile: Mapping[str, str]) -> None:
        self._path = path
        self.mark = mark
        self._profile = profile
        self._open()

    def _open(self) -> None:
        self.raw = cast(RawConnection, _chdb.connect(f"{self._path}?log-level=error"))
        self._database = DEFAULT_DATABASE
        self._applied: dict[str, str] = {}
        self._must_reopen = False
        settings = {"log_comment": self.mark, **self._profile}
        self.raw.query("SET " + ", ".join(f"{name} = {quoted(value)}" for name, value in settings.items()), "Null")

    def has(self, database: str, settings: Mapping[str, str]) -> bool:
        """Whether `prepare` would have nothing to do."""
        return not self._must_reopen and self._database == database and self._applied == settings

    def prepare(self, database: str, settings: Mapping[str, str]) -> None:
        """Bring the connection to this database and exactly these settings over its profile."""
        if self._must_reopen:
            self.close()
            self._open()
        if settings != self._applied:
            changes = {name: quoted(value) for name, value in settings.items() if self._applied.get(name) != value}
            for name in self._applied:
                if name not in settings:
                    changes[name] = quoted(self._profile[name]) if name in self._profile else "DEFAULT"
            self._must_reopen = True  # until the SET has worked, nobody knows which half of it has
            self.execute("SET " + ", ".join(f"{quoted_name(name)} = {value}" for name, value in changes.items()))
            self._must_reopen = "readonly" in settings
            self._applied = dict(settings)
        if database != self._database:
            self.execute(f"USE {quoted_name(database)}")
            self._database = database

    def execute(self, statement: str, output_format: str = "TSV", params: Mapping[str, str] | None = None) -> Result:
        """Run a statement to its end; raises ClickHouseError."""
        try:
            return self.raw.query(statement, output_format, params=dict(params or {}))
        except RuntimeError as error:
            self._drop_unfinished()
            raise from_engine(error) from error

    def _drop_unfinished(self) -> None:
        """Take out what a query that failed half-way had written already: chDB puts it before the next query's answer."""
        try:
            self.raw.query("SELECT 1", "Null")
        except RuntimeError:  # a kill that was meant for the query that has failed
            self._must_reopen = True

    def stream(self, statement: str, output_format: str, params: Mapping[str, str]) -> Generator[Result, None, None]:
        """Run a SELECT and hand out its blocks, each formatted by itself; closing the iterator cancels the query."""
        try:
            handle = self.raw.send_query(statement, output_format, params=dict(params))
        except RuntimeError as error:
            raise from_engine(error) from error
        finished = False
        try:
            while True:
                block = self.raw.streaming_fetch_result(handle)
                if block is None or block.rows_read() == 0:
                    finished = True
                    return
                yield block
        except RuntimeError as error:
            finished = True
            raise from_engine(error) from error
        finally:
            if not finished:
                self.raw.streaming_cancel_query(handle)

    def insert(self, head: str, data_format: str, pieces: Iterator[bytes]) -> Result:
        """Insert data by `INSERT INTO … ` (without its FORMAT clause); raises ClickHouseError.

        Through a file without a name: chDB's own way to insert a stream says that all is well when the rows could not be
        written, for want of room say.
        """
        with tempfile.TemporaryFile(prefix="insert-", buffering=0) as data:
            for piece in pieces:
                _keep(data, piece)
            data.seek(0)
            return self.execute(insert_from_file(head, data_format, f"/dev/fd/{data.fileno()}"), "Null")

    def forget_state(self) -> None:
        """Have the connection replaced before its next use: a statement has changed it."""
        self._must_reopen = True

    def close(self) -> None:
        """Close the connection."""
        self.raw.close()


def _keep(file: IO[bytes], piece: bytes) -> None:
    left = memoryview(piece)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as error:
        raise refusal(NOT_ENOUGH_SPACE, f"The data cannot be kept: {error}", "NOT_ENOUGH_SPACE") from error


class SessionPool:
    """Sessions of one user. Borrowing prefers one that already has the wanted settings."""

    def __init__(self, path: Path, user: str, profile: Mapping[str, str], size: int, wait_s: float) -> None:
        self._idle = [Session(path, f"{user}-{number}", profile) for number in range(size)]
        self._all = list(self._idle)
        self._wait_s = wait_s
        self._available = threading.Condition()

    @contextlib.contextmanager
    def borrow(self, database: str, settings: Mapping[str, str]) -> Iterator[Session]:
        """A prepared session; raises ClickHouseError when none comes free in time or the settings are wrong."""
        with self._available:
            if not self._available.wait_for(lambda: bool(self._idle), timeout=self._wait_s):
                reason = "Too many simultaneous queries."
                raise refusal(TOO_MANY_SIMULTANEOUS_QUERIES, reason, "TOO_MANY_SIMULTANEOUS_QUERIES")
            session = self._take(database, settings)
        try:
            session.prepare(database, settings)
            yield session
        finally:
            with self._available:
                self._idle.append(session)
                self._available.notify()

    def _take(self, database: str, settings: Mapping[str, str]) -> Session:
        for index in range(len(self._idle) - 1, -1, -1):
            if self._idle[index].has(database, settings):
                return self._idle.pop(index)
        return self._idle.pop(0)

    def close(self) -> None:
        """Close every connection."""
        for session in self._all:
            session.close()
