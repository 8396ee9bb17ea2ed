"""Telling statements apart without being fooled by strings, comments and names."""

import pytest

from embedded.clickhouse.statements import (
    DataInsert,
    Kill,
    changes_connection,
    data_insert,
    first_word,
    insert_from_file,
    kill_query,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("INSERT INTO t FORMAT CSV\n1,2", ("INSERT INTO t", "CSV", "1,2")),
        ("INSERT INTO t FORMAT CSV\r\n1,2", ("INSERT INTO t", "CSV", "1,2")),
        (
            "insert into `format`.`values` (a, b) format Native\n\x01",
            ("insert into `format`.`values` (a, b)", "Native", "\x01"),
        ),
        ("INSERT INTO t (`a FORMAT b`) FORMAT JSONEachRow {}", ("INSERT INTO t (`a FORMAT b`)", "JSONEachRow", "{}")),
        ("INSERT INTO t /* FORMAT TSV */ FORMAT CSV\n", ("INSERT INTO t /* FORMAT TSV */", "CSV", "")),
        ("INSERT INTO t VALUES", ("INSERT INTO t", "Values", "")),
    ],
)
def test_insert_with_data_is_taken_apart(text: str, expected: tuple[str, str, str]) -> None:
    found = data_insert(text)
    assert isinstance(found, DataInsert)
    assert (found.head.strip(), found.data_format, text[found.data_offset :]) == expected


@pytest.mark.parametrize(
    "text",
    [
        "INSERT INTO t SELECT 1",
        "INSERT INTO t VALUES (1)",
        "INSERT INTO t WITH 1 AS x SELECT x FORMAT CSV",
        "INSERT INTO t",
    ],
)
def test_insert_without_data_is_a_statement(text: str) -> None:
    assert data_insert(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("SELECT 1", "select"), ("  -- x\n /* y */ (With 1", "with"), ("", ""), ("'a'", "")],
)
def test_first_word_is_found_behind_comments(text: str, expected: str) -> None:
    assert first_word(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SET x = 1", True),
        ("use db", True),
        ("CREATE TEMPORARY TABLE t (a Int8)", True),
        ("SELECT 1", False),
        ("SETTLE", False),
    ],
)
def test_statements_that_change_the_connection_are_known(text: str, expected: bool) -> None:
    assert changes_connection(text) is expected


def test_kill_query_by_literal_and_by_parameter() -> None:
    assert kill_query("KILL QUERY WHERE query_id = 'a' SYNC", {}) == Kill(("a",), True, "")
    assert kill_query("kill query where query_id={q: String} FORMAT CSV;", {"q": "b"}) == Kill(("b",), False, "CSV")
    assert kill_query("KILL QUERY WHERE query_id IN ('a', 'b') ASYNC", {}) == Kill(("a", "b"), False, "")


def test_other_statements_are_no_kill_query() -> None:
    assert kill_query("SELECT 'KILL QUERY WHERE query_id = 1'", {}) is None
    assert kill_query("KILL MUTATION WHERE table = 't'", {}) is None


@pytest.mark.parametrize(
    ("head", "statement"),
    [
        ("INSERT INTO t (a, b)", "INSERT INTO t (a, b) FROM INFILE '/f' FORMAT CSV"),
        ("INSERT INTO t SETTINGS x = 1", "INSERT INTO t FROM INFILE '/f' SETTINGS x = 1 FORMAT CSV"),
        ("INSERT INTO t (`settings`)", "INSERT INTO t (`settings`) FROM INFILE '/f' FORMAT CSV"),
    ],
)
def test_data_is_inserted_from_a_file(head: str, statement: str) -> None:
    assert insert_from_file(head, "CSV", "/f") == statement
