"""Clients of ClickHouse: one writer and one reader a process, both on one connection pool.

They are made at first use and belong to the process that made them, so a server may fork after import. No session ids: a
client may be used by many threads at once.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import OperationalError
from clickhouse_connect.driver.httputil import get_pool_manager
from django.conf import settings

from config.clickhouse import cluster
from config.clickhouse.connections import send_in_one_piece
from config.errors import TemporarilyUnavailable

CONNECT_TIMEOUT_S = 2
# The server gives up first (max_execution_time); these only bound a server that says nothing at all.
READ_GRACE_S = 5
WRITE_TIMEOUT_S = 600

Role = Literal["writer", "reader"]


class StoreUnavailable(TemporarilyUnavailable):
    """503: ClickHouse cannot be reached, or went away in the middle of an answer."""

    def __init__(self, message: str = "The data store cannot be reached right now. Try again shortly.") -> None:
        super().__init__(message)


_lock = threading.Lock()
_clients: dict[tuple[int, Role], Client] = {}
_pools: dict[int, Any] = {}


def writer() -> Client:
    """The client that may change data and schema (CLICKHOUSE_URL). Raises `StoreUnavailable`."""
    return _client("writer")


def reader() -> Client:
    """The client of the read-only user (CLICKHOUSE_READER_URL). Raises `StoreUnavailable`."""
    return _client("reader")


@contextmanager
def store_errors() -> Iterator[None]:
    """Turns the driver's transport errors into `StoreUnavailable`; what the server itself refuses passes through."""
    try:
        yield
    except OperationalError as exc:
        raise StoreUnavailable from exc


def connect(url: str, *, read_timeout_s: int, role: Role = "writer", database: str | None = None) -> Client:
    """A new client of `url` on this process's pool; `database` replaces the one in the URL."""
    options: dict[str, Any] = {} if database is None else {"database": database}
    if on_cluster := cluster.client_settings(role, cluster.name()):
        options["settings"] = on_cluster
    with store_errors():
        return clickhouse_connect.get_client(
            dsn=url,
            pool_mgr=_pool(),
            connect_timeout=CONNECT_TIMEOUT_S,
            send_receive_timeout=read_timeout_s,
            autogenerate_session_id=False,
            query_retries=0,
            # For the same rows it takes less time than the driver's own choice, and a third less of the wire.
            compress="zstd",
            **options,
        )


def reader_url() -> str:
    """CLICKHOUSE_READER_URL, or CLICKHOUSE_URL with the user `reader`."""
    if settings.CLICKHOUSE_READER_URL:
        return str(settings.CLICKHOUSE_READER_URL)
    parts = urlsplit(settings.CLICKHOUSE_URL)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"reader:@{host}"))


def database_name() -> str:
    """The database that CLICKHOUSE_URL names."""
    return urlsplit(settings.CLICKHOUSE_URL).path.strip("/") or "default"


def forget_clients() -> None:
    """Closes this process's clients: the next use makes new ones from the settings of that moment."""
    with _lock:
        for key in [key for key in _clients if key[0] == os.getpid()]:
            _clients.pop(key).close()
        pool = _pools.pop(os.getpid(), None)
        if pool is not None:
            pool.clear()


def _client(role: Role) -> Client:
    key = (os.getpid(), role)
    client = _clients.get(key)
    if client is not None:
        return client
    # Made outside the lock, for it talks to the server: two threads may both make one, the first to finish stays.
    if role == "writer":
        made = connect(settings.CLICKHOUSE_URL, read_timeout_s=WRITE_TIMEOUT_S)
    else:
        made = connect(reader_url(), read_timeout_s=settings.QUERY_TIMEOUT_S + READ_GRACE_S, role="reader")
    with _lock:
        return _clients.setdefault(key, made)


def _pool() -> Any:
    with _lock:
        pool = _pools.get(os.getpid())
        if pool is None:
            pool = send_in_one_piece(get_pool_manager(maxsize=settings.CLICKHOUSE_POOL, num_pools=4))
            _pools[os.getpid()] = pool
        return pool
