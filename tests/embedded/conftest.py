"""Clients of the ClickHouse server that the test run has started."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client

from embedded.environment import ENGINE_URLS
from tests.engines import clickhouse_database

Connect = Callable[..., Client]


@pytest.fixture
def address() -> tuple[str, int]:
    """Host and port of the server."""
    parts = urlsplit(os.environ["CLICKHOUSE_URL"])
    return parts.hostname or "", parts.port or 0


@pytest.fixture
def connect(address: tuple[str, int]) -> Iterator[Connect]:
    """Opens clients of this worker's database."""
    with ExitStack() as clients:

        def open_client(**options: Any) -> Client:
            wanted: dict[str, Any] = {"database": clickhouse_database(), "autogenerate_session_id": False, **options}
            client = clickhouse_connect.get_client(host=address[0], port=address[1], **wanted)
            clients.callback(client.close)
            return client

        setup = open_client(database="default")
        setup.command(f"CREATE DATABASE IF NOT EXISTS {clickhouse_database()}")
        yield open_client


@pytest.fixture
def client(connect: Connect) -> Client:
    """A client that may do all."""
    return connect()


@pytest.fixture
def reader(connect: Connect) -> Client:
    """A client of the user that only reads."""
    return connect(username="reader")


@pytest.fixture
def table(client: Client) -> Iterator[str]:
    """An empty table (number UInt64, word String)."""
    name = f"t_{uuid4().hex}"
    client.command(f"CREATE TABLE {name} (number UInt64, word String) ENGINE = MergeTree ORDER BY number")
    yield name
    client.command(f"DROP TABLE {name}")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for a stack of its own, in an environment that names no engine."""
    for name in ENGINE_URLS:
        monkeypatch.delenv(name, raising=False)
    tmp_path.parent.chmod(0o711)
    return tmp_path
