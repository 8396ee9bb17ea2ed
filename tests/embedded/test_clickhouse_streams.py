"""Answers that are sent block by block, and what a reader sees when they break."""

import csv
import io
from concurrent.futures import ProcessPoolExecutor
from http.client import HTTPConnection, IncompleteRead
from multiprocessing import get_context

import clickhouse_connect
import psutil
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import StreamFailureError

from tests.embedded.conftest import Connect

ROWS = 300_000
SUM = ROWS * (ROWS - 1) // 2


@pytest.mark.parametrize("compression", [False, "lz4", "zstd", "gzip"])
def test_native_stream_is_whole(connect: Connect, compression: bool | str) -> None:
    client = connect(compress=compression)
    statement = f"SELECT number, toString(number) FROM numbers({ROWS})"
    with client.query_row_block_stream(statement) as blocks:
        numbers = [row for block in blocks for row in block]
    assert (len(numbers), sum(number for number, _ in numbers)) == (ROWS, SUM)
    assert all(str(number) == text for number, text in numbers)


def test_arrow_stream_is_one_valid_stream(client: Client) -> None:
    statement = f"SELECT number, toLowCardinality(toString(number % 3)) AS word FROM numbers({ROWS})"
    with client.query_arrow_stream(statement) as blocks:
        batches = list(blocks)
    assert sum(batch.num_rows for batch in batches) == ROWS
    assert sum(sum(batch.column("number").to_pylist()) for batch in batches) == SUM


def test_csv_stream_has_one_header(client: Client) -> None:
    statement = f"SELECT number AS \"a 'name'\", 'x,\"y\"' AS word FROM numbers({ROWS})"
    with client.raw_stream(statement, fmt="CSVWithNames") as stream:
        lines = list(csv.reader(io.StringIO(stream.read().decode())))
    assert lines[0] == ["a 'name'", "word"]
    assert (len(lines), lines[ROWS]) == (ROWS + 1, [str(ROWS - 1), 'x,"y"'])


def test_empty_csv_stream_has_its_header(client: Client) -> None:
    with client.raw_stream("SELECT number FROM numbers(0)", fmt="CSVWithNames") as stream:
        assert stream.read() == b'"number"\n'


def test_error_before_the_first_row_has_its_status(address: tuple[str, int]) -> None:
    connection = HTTPConnection(*address, timeout=30)
    connection.request("POST", "/", "SELECT throwIf(number = 0) FROM numbers(10)")
    response = connection.getresponse()
    assert (response.status, response.headers["X-ClickHouse-Exception-Code"]) == (500, "395")
    response.read()
    connection.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_error_in_the_middle_reaches_the_client_as_an_error(client: Client) -> None:
    statement = "SELECT number, throwIf(number = 2000000, 'in the middle') FROM numbers(3000000)"
    with pytest.raises(StreamFailureError, match="in the middle"), client.query_row_block_stream(statement) as blocks:
        for _ in blocks:
            pass


def test_broken_stream_never_looks_whole(address: tuple[str, int]) -> None:
    connection = HTTPConnection(*address, timeout=30)
    connection.request("POST", "/", "SELECT throwIf(number = 2000000) FROM numbers(3000000) FORMAT CSV")
    response = connection.getresponse()
    with pytest.raises(IncompleteRead):
        response.read()
    connection.close()


def _server(address: tuple[str, int]) -> psutil.Process:
    listening = [
        c.pid for c in psutil.net_connections("tcp") if c.laddr and c.laddr.port == address[1] and c.status == "LISTEN"
    ]
    return psutil.Process(listening[0])


def test_big_answer_needs_little_memory(client: Client, address: tuple[str, int]) -> None:
    server = _server(address)
    before = server.memory_info().rss
    total = highest = 0
    with client.raw_stream("SELECT repeat('x', 99) FROM numbers(2000000)", fmt="TSV") as stream:
        while piece := stream.read(8 * 1024 * 1024):
            total += len(piece)
            highest = max(highest, server.memory_info().rss)
    assert total == 2_000_000 * 100
    assert highest - before < 120 * 1024 * 1024


def _work(address: tuple[str, int]) -> list[tuple[int, int]]:
    """What one client process sees of streams that run beside those of others."""
    client = clickhouse_connect.get_client(host=address[0], port=address[1], autogenerate_session_id=False)
    seen = []
    for _ in range(2):
        with client.query_column_block_stream(f"SELECT number, toString(number) FROM numbers({ROWS})") as blocks:
            columns = [(len(numbers), sum(map(int, texts))) for numbers, texts in blocks]
        seen.append((sum(rows for rows, _ in columns), sum(total for _, total in columns)))
    client.close()
    return seen


def test_several_processes_are_served_at_once(address: tuple[str, int]) -> None:
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        results = list(pool.map(_work, [address] * 3))
    assert results == [[(ROWS, SUM)] * 2] * 3
