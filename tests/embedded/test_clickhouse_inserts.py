"""Inserts through clickhouse-connect, in the formats and compressions that it sends."""

import gzip
from collections.abc import Iterator
from http.client import HTTPConnection

import lz4.frame
import pyarrow
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from embedded.clickhouse.codecs import compressor
from tests.embedded.conftest import Connect
from tests.engines import clickhouse_database

LINES = b'{"number": 1, "word": "one"}\n{"number": 2, "word": "two"}\n'


def zstd(data: bytes) -> bytes:
    """The data as one zstd frame."""
    stream = compressor("zstd")
    return stream.feed(data) + stream.finish()


def rows(client: Client, table: str) -> list[tuple[int, str]]:
    """The table's rows in order."""
    return [tuple(row) for row in client.query(f"SELECT number, word FROM {table} ORDER BY number").result_rows]


@pytest.mark.parametrize("compression", [False, "lz4", "zstd", "gzip"])
def test_native_insert_arrives_whole(connect: Connect, table: str, compression: bool | str) -> None:
    client = connect(compress=compression)
    summary = client.insert(table, [[1, "one"], [2, "it's"]], column_names=["number", "word"])
    assert summary.written_rows == 2
    assert rows(client, table) == [(1, "one"), (2, "it's")]


def test_arrow_insert_arrives_whole(client: Client, table: str) -> None:
    count = 200_000
    words = [f"word {number}" for number in range(count)]
    data = pyarrow.table({"number": pyarrow.array(range(count), pyarrow.uint64()), "word": words})
    assert client.insert_arrow(table, data).written_rows == count
    found = client.query(f"SELECT count(), sum(number), uniqExact(word) FROM {table}").result_rows
    assert found == [(count, count * (count - 1) // 2, count)]


@pytest.mark.parametrize(
    ("compression", "body"),
    [
        (None, LINES),
        ("gzip", gzip.compress(LINES)),
        ("lz4", lz4.frame.compress(LINES)),
        ("zstd", zstd(LINES)),
        ("lz4", lz4.frame.compress(LINES[:29]) + lz4.frame.compress(LINES[29:])),
    ],
    ids=["plain", "gzip", "lz4", "zstd", "two lz4 frames"],
)
def test_raw_insert_is_decompressed(client: Client, table: str, compression: str | None, body: bytes) -> None:
    summary = client.raw_insert(table, insert_block=body, fmt="JSONEachRow", compression=compression)
    assert summary.written_rows == 2
    assert rows(client, table) == [(1, "one"), (2, "two")]


def test_chunked_body_is_inserted(client: Client, table: str, address: tuple[str, int]) -> None:
    def pieces() -> Iterator[bytes]:
        yield f"INSERT INTO {clickhouse_database()}.{table} FORMAT CSV\n1,o".encode()
        yield b'ne\n2,"two"\n'

    connection = HTTPConnection(*address, timeout=30)
    connection.request("POST", "/", pieces(), encode_chunked=True)
    response = connection.getresponse()
    response.read()
    connection.close()
    assert response.status == 200
    assert rows(client, table) == [(1, "one"), (2, "two")]


def test_insert_values_and_insert_select_run_as_statements(client: Client, table: str) -> None:
    client.command(f"INSERT INTO {table} VALUES (1, 'FORMAT'), (2, 'VALUES')")
    client.command(f"INSERT INTO {table} SELECT 3, 'three'")
    assert rows(client, table) == [(1, "FORMAT"), (2, "VALUES"), (3, "three")]


def test_malformed_data_is_an_error_and_the_connection_goes_on(client: Client, table: str) -> None:
    with pytest.raises(DatabaseError, match=r"Code: 27\."):
        client.raw_insert(table, insert_block=b"1,one\nx,two\n", fmt="CSV")
    assert rows(client, table) == []
    client.raw_insert(table, insert_block=b"3,three\n", fmt="CSV")
    assert rows(client, table) == [(3, "three")]


def test_insert_into_a_missing_table_is_an_error(client: Client) -> None:
    with pytest.raises(DatabaseError, match=r"Code: 60\."):
        client.raw_insert("nowhere_at_all", insert_block=b"1\n", fmt="CSV")


def test_body_that_is_not_compressed_as_said_is_refused(client: Client, table: str) -> None:
    with pytest.raises(DatabaseError, match=r"Code: 271\."):
        client.raw_insert(table, insert_block=b"plain", fmt="CSV", compression="gzip")
    assert rows(client, table) == []


def test_client_that_breaks_off_inserts_nothing(client: Client, table: str, address: tuple[str, int]) -> None:
    connection = HTTPConnection(*address, timeout=30)
    connection.connect()
    head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
    statement = f"INSERT INTO {clickhouse_database()}.{table} FORMAT CSV\n"
    connection.sock.sendall((head + statement + "1,one\n" * 20_000).encode())
    connection.close()
    assert client.query("SELECT 1").result_rows == [(1,)]
    assert rows(client, table) == []


def test_rows_that_cannot_be_written_are_an_error(client: Client, table: str) -> None:
    client.command(f"ALTER TABLE {table} MODIFY SETTING min_free_disk_bytes_to_perform_insert = {2**60}")
    data = pyarrow.table({"number": pyarrow.array([1], pyarrow.uint64()), "word": ["one"]})
    with pytest.raises(DatabaseError) as caught:
        client.insert_arrow(table, data)
    assert caught.value.code == 243
    client.command(f"ALTER TABLE {table} RESET SETTING min_free_disk_bytes_to_perform_insert")
    assert rows(client, table) == []


def test_rows_that_break_a_constraint_are_an_error(client: Client, table: str) -> None:
    client.command(f"ALTER TABLE {table} ADD CONSTRAINT small CHECK number < 10")
    data = pyarrow.table({"number": pyarrow.array([1, 10], pyarrow.uint64()), "word": ["one", "ten"]})
    with pytest.raises(DatabaseError, match="VIOLATED_CONSTRAINT"):
        client.insert_arrow(table, data, settings={"max_insert_block_size": 10})
    assert rows(client, table) == []
