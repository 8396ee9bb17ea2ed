"""The user `reader`: what it may read, and what it may not reach or lift."""

from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from embedded.clickhouse.errors import ClickHouseError
from embedded.clickhouse.guard import READER_LIMITS, check_setting, check_statement

LONG = "SELECT count() FROM numbers(100000000000) WHERE sipHash64(number) % 7 = 3"


def test_reader_reads_tables(client: Client, reader: Client, table: str) -> None:
    client.command(f"INSERT INTO {table} VALUES (7, 'seven')")
    assert reader.query(f"SELECT number, word FROM {table}").result_rows == [(7, "seven")]


@pytest.mark.parametrize(
    "verb", ["INSERT INTO {} VALUES (1, '')", "DROP TABLE {}", "ALTER TABLE {} DELETE WHERE 1", "TRUNCATE TABLE {}"]
)
def test_reader_may_not_change_anything(client: Client, reader: Client, table: str, verb: str) -> None:
    with pytest.raises(DatabaseError, match=r"Code: 164\."):
        reader.command(verb.format(table))
    assert client.query(f"SELECT count() FROM {table}").result_rows == [(0,)]


def test_reader_may_lower_a_limit(reader: Client) -> None:
    with pytest.raises(DatabaseError, match=r"Code: 159\..*TIMEOUT_EXCEEDED"):
        reader.query(LONG, settings={"max_execution_time": 1})


def test_reader_result_rows_are_limited(reader: Client) -> None:
    with pytest.raises(DatabaseError, match=r"Code: 396\."):
        reader.raw_query(f"SELECT number FROM numbers({READER_LIMITS['max_result_rows'] + 1})", fmt="Null")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_execution_time", "0"),
        ("max_execution_time", "301"),
        ("max_execution_time", "nan"),
        ("max_execution_time", "-1"),
        ("max_memory_usage", "0"),
        ("max_result_rows", "99999999999"),
        ("readonly", "0"),
        ("allow_ddl", "1"),
    ],
)
def test_reader_may_not_lift_a_limit(name: str, value: str) -> None:
    with pytest.raises(ClickHouseError, match="SETTING_CONSTRAINT_VIOLATION"):
        check_setting(name, value)
    with pytest.raises(ClickHouseError, match="SETTING_CONSTRAINT_VIOLATION"):
        check_statement(f"SELECT 1 SETTINGS max_threads = 1, {name} = {value}")


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM file('/etc/hosts')",
        "SELECT * FROM FILE /* a comment */ ('/etc/hosts')",
        "SELECT * FROM `file`('/etc/hosts')",
        "SELECT file('/etc/hosts')",
        "SELECT * FROM url('http://localhost/')",
        "SELECT * FROM s3('http://localhost/bucket')",
        "SELECT * FROM remote('localhost', system.one)",
        "SELECT * FROM `/etc/hosts`",
        'SELECT * FROM "/etc/hosts"',
        "SELECT * FROM default.`../../etc/hosts`",
        "SELECT * FROM '/etc/hosts'",
        "SELECT 1 JOIN '/etc/hosts' ON 1",
        "SELECT 1 INTO OUTFILE '/tmp/out'",
        "SELECT 1; SELECT 2",
    ],
)
def test_reader_may_not_reach_files_or_networks(statement: str) -> None:
    with pytest.raises(ClickHouseError, match="ACCESS_DENIED"):
        check_statement(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 'file(''/etc/hosts'')'",
        "SELECT 'a; b', `file` FROM t -- file('/etc/hosts')",
        "WITH 1 AS url SELECT url FROM t WHERE x = 'from'",
        "(SELECT 1) UNION ALL (SELECT 2);",
        "SELECT 1 SETTINGS max_execution_time = 10, max_result_rows = 5",
        "EXPLAIN SELECT 1",
        "DESCRIBE TABLE t",
    ],
)
def test_reader_may_name_such_things(statement: str) -> None:
    check_statement(statement)


def test_reader_cannot_read_a_file_over_http(reader: Client, tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("secret\n")
    with pytest.raises(DatabaseError, match=r"Code: 497\."):
        reader.query(f"SELECT * FROM `{secret}`")
