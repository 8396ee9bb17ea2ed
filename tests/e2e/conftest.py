"""The product as a process, and an operator's browser in front of it."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import connection

from tests.e2e.browser import Visit, browsing
from tests.faults.processes import Web
from tests.operators import make_operator


@pytest.fixture(scope="session")
def web(clickhouse_schema: None) -> Iterator[Web]:
    """One web process for all tests of a worker."""
    process = Web()
    yield process
    process.close()


@contextmanager
def visiting(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Visit]:
    """An operator who has logged in. At the end the browser must have had nothing to complain about."""
    # Playwright's event loop lives in this thread, where Django would refuse to ask the database.
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    operator = make_operator()
    with browsing(url, permissions=["clipboard-read", "clipboard-write"]) as visit:
        visit.log_in(email=operator.email, password="correct horse")
        yield visit
        # Inside the loop Django holds a connection of its own.
        connection.close()
        assert visit.complaints == []


@pytest.fixture
def operator_visit(stores: None, web: Web, monkeypatch: pytest.MonkeyPatch) -> Iterator[Visit]:
    """An operator in front of the web process."""
    with visiting(web.url, monkeypatch) as visit:
        yield visit
