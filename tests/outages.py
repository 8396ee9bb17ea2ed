"""Stores that are away: the product looks for them where nobody listens."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection
from django.test import override_settings

from config import redis
from config.breaker import forget_breakers
from config.clickhouse.client import forget_clients

NOBODY_LISTENS = "127.0.0.1:1"


class redis_away(override_settings):  # noqa: N801 - reads as a state
    """The Redis that holds money."""

    def __init__(self) -> None:
        super().__init__(REDIS_URL=f"redis://{NOBODY_LISTENS}/0")

    def enable(self) -> None:
        super().enable()
        redis.forget_clients()
        forget_breakers()

    def disable(self) -> None:
        super().disable()
        redis.forget_clients()
        forget_breakers()


class clickhouse_away(override_settings):  # noqa: N801 - reads as a state
    """ClickHouse, for the writer and the reader."""

    def __init__(self) -> None:
        super().__init__(CLICKHOUSE_URL=f"http://default:@{NOBODY_LISTENS}/meterhouse", CLICKHOUSE_READER_URL="")

    def enable(self) -> None:
        super().enable()
        forget_clients()

    def disable(self) -> None:
        super().disable()
        forget_clients()


@contextmanager
def postgres_away() -> Iterator[None]:
    """PostgreSQL, for every thread: nobody listens where it was, and who asks is told so after a moment."""
    settings = connection.settings_dict  # shared by the connections of all threads
    kept = {name: settings[name] for name in ("HOST", "PORT", "OPTIONS")}
    host, _, port = NOBODY_LISTENS.partition(":")
    options = {**kept["OPTIONS"], "pool": {**kept["OPTIONS"]["pool"], "timeout": 0.2}}
    connection.close()
    connection.close_pool()  # type: ignore[attr-defined]  # of the PostgreSQL backend alone
    settings.update(HOST=host, PORT=port, OPTIONS=options)
    try:
        yield
    finally:
        connection.close()
        connection.close_pool()  # type: ignore[attr-defined]
        settings.update(kept)
