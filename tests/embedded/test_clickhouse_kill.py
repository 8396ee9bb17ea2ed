"""Ending queries: KILL QUERY by id, and clients that go away."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from uuid import uuid4

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from tests.embedded.conftest import Connect

LONG = "SELECT count() FROM numbers(100000000000) WHERE sipHash64(number) % 7 = 3"
PATIENCE_S = 20.0


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens in another process; fails when it does not."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def running(client: Client, mark: str) -> int:
    """How many queries with this mark in their text are at work."""
    statement = (
        "SELECT count() FROM system.processes "
        "WHERE position(query, {mark:String}) > 0 AND query NOT LIKE '%system.processes%'"
    )
    return int(client.query(statement, parameters={"mark": mark}).result_rows[0][0])


def test_kill_query_ends_the_query_with_this_id(connect: Connect, client: Client) -> None:
    query_id = str(uuid4())
    victim = connect(username="reader")
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(victim.query, f"{LONG} -- {query_id}", settings={"query_id": query_id})
        wait_until(lambda: running(client, query_id) == 1)
        killed = client.command("KILL QUERY WHERE query_id = {id:String} SYNC", parameters={"id": query_id})
        assert query_id in str(killed)
        with pytest.raises(DatabaseError, match=r"Code: 394\..*QUERY_WAS_CANCELLED"):
            future.result(timeout=PATIENCE_S)
    assert running(client, query_id) == 0


def test_killing_an_unknown_id_does_nothing(client: Client) -> None:
    query = f"KILL QUERY WHERE query_id = '{uuid4()}' FORMAT TSV"
    assert client.raw_query(query) == b""


def test_reader_may_not_kill_queries_of_others(connect: Connect, client: Client, reader: Client) -> None:
    query_id = str(uuid4())
    victim = connect()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(victim.query, f"{LONG} -- {query_id}", settings={"query_id": query_id})
        wait_until(lambda: running(client, query_id) == 1)
        reader.command(f"KILL QUERY WHERE query_id = '{query_id}'")
        assert running(client, query_id) == 1
        client.command(f"KILL QUERY WHERE query_id = '{query_id}' SYNC")
        with pytest.raises(DatabaseError, match=r"Code: 394\."):
            future.result(timeout=PATIENCE_S)


def test_query_id_at_work_is_refused_a_second_time(connect: Connect, client: Client) -> None:
    query_id = str(uuid4())
    victim = connect()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(victim.query, f"{LONG} -- {query_id}", settings={"query_id": query_id})
        wait_until(lambda: running(client, query_id) == 1)
        with pytest.raises(DatabaseError, match=r"Code: 216\."):
            client.query("SELECT 1", settings={"query_id": query_id})
        client.command(f"KILL QUERY WHERE query_id = '{query_id}'")
        with pytest.raises(DatabaseError, match=r"Code: 394\."):
            future.result(timeout=PATIENCE_S)


@pytest.mark.parametrize("path", ["/?wait_end_of_query=1", "/"])
def test_query_ends_when_its_client_goes_away(client: Client, address: tuple[str, int], path: str) -> None:
    mark = uuid4().hex
    connection = HTTPConnection(*address, timeout=30)
    connection.request("POST", path, f"{LONG} -- {mark}")
    wait_until(lambda: running(client, mark) == 1)
    connection.close()
    wait_until(lambda: running(client, mark) == 0)
