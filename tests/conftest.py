"""Fixtures for every test: real stores, migrated once a worker, never flushed.

The ledger cannot be deleted from, so tests do not roll back and do not truncate: each one makes accounts of its own.
"""

from collections.abc import Iterator

import clickhouse_connect
import pytest
from django.core.management import call_command
from django.db import connection
from django.test.utils import setup_databases, teardown_databases
from pytest_django import DjangoDbBlocker

from tests.engines import WORKER, clickhouse_database


@pytest.fixture(scope="session")
def django_db_setup(django_test_environment: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """This worker's test database. pytest-django's own would make it only for tests marked `django_db`."""
    suffix = f"_{WORKER}" if WORKER else ""
    connection.settings_dict["TEST"]["NAME"] = f"test_meterhouse{suffix}"
    with django_db_blocker.unblock():
        made = setup_databases(verbosity=0, interactive=False)
    yield
    with django_db_blocker.unblock():
        connection.close_pool()  # type: ignore[attr-defined]  # of the PostgreSQL backend alone
        teardown_databases(made, verbosity=0)


@pytest.fixture(scope="session")
def clickhouse_schema(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> None:
    """This worker's ClickHouse database with every migration applied (they run under a lock in PostgreSQL)."""
    from django.conf import settings

    server = clickhouse_connect.get_client(
        dsn=settings.CLICKHOUSE_URL, database="default", autogenerate_session_id=False
    )
    server.command(f"CREATE DATABASE IF NOT EXISTS {clickhouse_database()}")
    server.close()
    with django_db_blocker.unblock():
        call_command("migrate_clickhouse", verbosity=0)


@pytest.fixture
def committed_db(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """The database as the product sees it: what a test writes is committed and stays."""
    with django_db_blocker.unblock():
        yield


@pytest.fixture
def stores(committed_db: None, clickhouse_schema: None) -> None:
    """All three stores, migrated and open."""
