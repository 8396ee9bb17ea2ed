"""What ClickHouse refuses, as the customer hears of it. The statements here are the tests' own; the engine is real."""

import uuid

import pytest
import urllib3
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError
from urllib3.exceptions import HTTPError

from config.clickhouse.client import StoreUnavailable, forget_clients
from config.errors import DomainError
from search import store
from search.query.compile import Statement
from tests.outages import NOBODY_LISTENS


def run(sql: str) -> bytes:
    return store._run(Statement(sql, {}), str(uuid.uuid4()))


def refusal(sql: str) -> DomainError:
    with pytest.raises(DomainError) as caught:
        run(sql)
    return caught.value


@pytest.mark.parametrize(
    "limit", ["max_rows_to_read = 10", "max_result_rows = 10", "max_memory_usage = 1000", "max_bytes_to_read = 10"]
)
def test_a_passed_limit_is_query_too_expensive(stores: None, limit: str) -> None:
    error = refusal(f"SELECT groupArray(number) FROM numbers(1000000) GROUP BY number % 1000 SETTINGS {limit}")
    assert (error.status, error.code) == (422, "QUERY_TOO_EXPENSIVE")
    assert "SELECT" not in error.message


def test_a_passed_deadline_is_query_timeout(stores: None) -> None:
    error = refusal("SELECT count() FROM numbers(100000000000) SETTINGS max_execution_time = 0.1")
    assert (error.status, error.code, error.details) == (504, "QUERY_TIMEOUT", {"timeout_s": 10})


def test_a_table_that_is_not_there_yet_is_temporarily_unavailable(stores: None) -> None:
    error = refusal("SELECT 1 FROM no_such_table")
    assert (error.status, error.code, error.headers) == (503, "TEMPORARILY_UNAVAILABLE", {"Retry-After": "2"})


def test_a_defect_of_our_own_sql_is_not_hidden_as_the_callers(stores: None) -> None:
    with pytest.raises(DatabaseError):
        run("SELEKT 1")


def test_a_store_that_cannot_be_reached_is_temporarily_unavailable(clickhouse_away: None) -> None:
    assert isinstance(refusal("SELECT 1"), StoreUnavailable)


def post_to_nobody() -> None:
    """Fails as the driver does when the server under an open client is gone."""
    try:
        urllib3.request("POST", f"http://{NOBODY_LISTENS}/")
    except HTTPError as refused:
        raise OperationalError("Error executing HTTP request") from refused


def test_a_connection_refused_under_an_open_client_is_temporarily_unavailable() -> None:
    with pytest.raises(StoreUnavailable), store._errors():
        post_to_nobody()


def test_a_store_that_comes_back_is_used_again(stores: None) -> None:
    forget_clients()
    assert run("SELECT 1 FORMAT TSV") == b"1\n"


@pytest.mark.parametrize("source", ["file('/etc/passwd', 'LineAsString')", "url('http://127.0.0.1:1', 'CSV')"])
def test_the_reader_cannot_reach_files_or_the_network(stores: None, source: str) -> None:
    with pytest.raises((DatabaseError, DomainError)):
        run(f"SELECT * FROM {source}")
