"""Records that a test may search: each test marks its own by a word that no other test uses."""

import contextlib
import socket
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, NoReturn
from urllib.parse import urlsplit

import pytest
from django.db import OperationalError
from django.db.backends.postgresql.base import DatabaseWrapper
from django.test import Client
from pytest_django import Settings

from config.clickhouse.client import forget_clients, writer
from tests import outages
from tests.factories import Customer, make_customer

_DEFAULTS: dict[str, Any] = {
    "source_file": "people.csv",
    "ingested_at": datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC),
    "user_id": "",
    "email": "",
    "name": "",
    "phone": "",
    "address": "",
    "city": "",
    "country": "",
    "created_date": None,
    "status": "",
    "metadata": "{}",
    "data_quality_score": 0.5,
    "validation_errors": [],
}


def insert_records(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Puts rows into `records`, with defaults for what they leave out; returns them whole."""
    job = uuid.uuid4()
    whole = [{"id": uuid.uuid4(), "job_id": job, **_DEFAULTS, **row} for row in rows]
    columns = list(whole[0])
    writer().insert("records", [[row[name] for name in columns] for row in whole], column_names=columns)
    return whole


@pytest.fixture
def word() -> str:
    """A word that only this test's records hold."""
    return f"w{uuid.uuid4().hex}"


@pytest.fixture
def people(stores: None, word: str) -> list[dict[str, Any]]:
    """Three people whose city is the test's word: Ann (2024-01-05, active), Bob (2024-03-01, pending), Cid (no date)."""
    return insert_records(
        [
            {
                "user_id": f"Ann-{word}",
                "email": f"ann@{word}.example",
                "name": 'Ann "A" Müller',
                "phone": "+12025550101",
                "city": word,
                "country": "USA",
                "created_date": date(2024, 1, 5),
                "status": "active",
                "metadata": '{"note":"a/b","zip":"02458"}',
                "data_quality_score": 0.9,
                "validation_errors": ["phone"],
            },
            {
                "user_id": f"bob-{word}",
                "name": "Bob\nNewline",
                "city": word,
                "country": "GBR",
                "created_date": date(2024, 3, 1),
                "status": "pending",
                "metadata": '{"address":{"zip":"1"},"flat.zip":"2"}',
            },
            {"user_id": f"cid-{word}", "name": "Cid, Jr.", "city": word, "country": "USA", "status": "closed"},
        ]
    )


@pytest.fixture
def alice(stores: None) -> Customer:
    """A customer with 1,000 credits and a key without a rate limit."""
    return make_customer(credits=1_000)


@pytest.fixture
def api(stores: None) -> Client:
    """Django's test client; a defect in a view is raised, not answered."""
    return Client()


@pytest.fixture
def redis_away(stores: None) -> Iterator[None]:
    """The Redis that holds money cannot be reached."""
    with outages.redis_away():
        yield


@pytest.fixture
def clickhouse_away(stores: None) -> Iterator[None]:
    """ClickHouse cannot be reached."""
    with outages.clickhouse_away():
        yield


@pytest.fixture
def postgres_away(stores: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """No new connection to PostgreSQL can be made."""

    def refuse(*args: object) -> NoReturn:
        raise OperationalError("connection refused")

    monkeypatch.setattr(DatabaseWrapper, "get_new_connection", refuse)


@dataclass
class Cutter:
    """Stands between the product and ClickHouse; once `cut_after` is set, an answer ends after so many bytes."""

    target: tuple[str, int]
    cut_after: int | None = None
    _threads: list[threading.Thread] = field(default_factory=list)
    _server: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))

    @property
    def port(self) -> int:
        return int(self._server.getsockname()[1])

    def serve(self) -> None:
        """Serve connections until `close`, each in a thread of its own."""
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._pass, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _pass(self, client: socket.socket) -> None:
        with client, socket.create_connection(self.target) as store:
            asking = threading.Thread(target=self._copy, args=(client, store, None))
            asking.start()
            self._copy(store, client, self)
            asking.join()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket, cutter: "Cutter | None") -> None:
        passed = 0
        try:
            while data := source.recv(1_024):
                passed += len(data)
                if cutter and cutter.cut_after is not None and passed > cutter.cut_after:
                    break
                sink.sendall(data)
        except OSError:
            pass  # one end is gone: the other learns it below
        end_both(source, sink)

    def close(self) -> None:
        """Stop listening; connections end with their clients."""
        end_both(self._server)
        self._server.close()
        for thread in self._threads:
            thread.join(5)


def end_both(*ends: socket.socket) -> None:
    """Tells whoever still reads from these connections that they are over."""
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def cutter(stores: None, settings: Settings) -> Iterator[Cutter]:
    """ClickHouse reached through a `Cutter`, for the product's own clients."""
    parts = urlsplit(settings.CLICKHOUSE_URL)
    proxy = Cutter((parts.hostname or "127.0.0.1", parts.port or 8123))
    thread = threading.Thread(target=proxy.serve, daemon=True)
    thread.start()
    forget_clients()
    settings.CLICKHOUSE_URL = f"http://default:@127.0.0.1:{proxy.port}{parts.path}"
    yield proxy
    forget_clients()
    proxy.close()
    thread.join(5)
