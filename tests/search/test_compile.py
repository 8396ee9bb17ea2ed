"""Request → exact SQL and parameters: what a customer sends decides values, never the statement's shape."""

import json
from typing import Any

import pytest

from search.query.compile import compile_count, compile_csv, compile_json, compile_person
from search.query.fields import FIELDS
from search.query.request import parse_query, parse_search

JSON_TAIL = (
    "date_time_output_format = 'iso', output_format_json_escape_forward_slashes = 0, "
    "output_format_json_quote_64bit_integers = 0, format_template_rows_between_delimiter = ',', "
    r"format_template_resultset_format = '${data:None}\n${rows:Escaped}'"
)
EMAIL_ONLY = """format_template_row_format = '{"email":${c0:JSON}}'"""


def compiled(document: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    statement = compile_json(parse_query({"fields": ["email"], **document}))
    start, end = "SELECT nullIf(email, '') AS c0 FROM records ", f" FORMAT Template SETTINGS {EMAIL_ONLY}, {JSON_TAIL}"
    assert statement.sql.startswith(start)
    assert statement.sql.endswith(end)
    return statement.sql.removeprefix(start).removesuffix(end), statement.parameters


STORED = "ORDER BY country, status, created_date, id "


@pytest.mark.parametrize(
    ("document", "sql", "parameters"),
    [
        ({}, STORED + "LIMIT {p0:UInt64}", {"p0": 100}),
        ({"limit": 7, "offset": 14}, STORED + "LIMIT {p0:UInt64} OFFSET {p1:UInt64}", {"p0": 7, "p1": 14}),
        (
            {"filters": {"city": "Rome"}},
            "WHERE city = {p0:String} " + STORED + "LIMIT {p1:UInt64}",
            {"p0": "Rome", "p1": 100},
        ),
        (
            {"filters": {"email": "Ann@Example.COM", "country": "usa", "status": "Active"}},
            "WHERE email = {p0:String} AND country = {p1:String} AND status = {p2:String} "
            + STORED
            + "LIMIT {p3:UInt64}",
            {"p0": "ann@example.com", "p1": "USA", "p2": "active", "p3": 100},
        ),
        (
            {"filters": {"status": ["active", "pending", "active"]}},
            "WHERE status IN {p0:Array(String)} " + STORED + "LIMIT {p1:UInt64}",
            {"p0": ["active", "pending"], "p1": 100},
        ),
        (
            {"filters": {"created_date": {"gte": "2024-01-01", "lt": "2025-01-01"}}},
            "WHERE created_date >= {p0:Date32} AND created_date < {p1:Date32} " + STORED + "LIMIT {p2:UInt64}",
            {"p0": "2024-01-01", "p1": "2025-01-01", "p2": 100},
        ),
        (
            {"filters": {"data_quality_score": {"gt": 0, "lte": 0.9}}},
            "WHERE data_quality_score > {p0:Float32} AND data_quality_score <= {p1:Float32} "
            + STORED
            + "LIMIT {p2:UInt64}",
            {"p0": 0.0, "p1": 0.9, "p2": 100},
        ),
        (
            {"filters": {"data_quality_score": [0.5, 1]}},
            "WHERE data_quality_score IN {p0:Array(Float32)} " + STORED + "LIMIT {p1:UInt64}",
            {"p0": [0.5, 1.0], "p1": 100},
        ),
        (
            {"filters": {"ingested_at": {"eq": "2024-01-01T01:00:00.5+01:00"}}},
            "WHERE ingested_at = {p0:DateTime64(3,'UTC')} " + STORED + "LIMIT {p1:UInt64}",
            {"p0": "2024-01-01 00:00:00.500", "p1": 100},
        ),
        (
            {"filters": {"id": {"in": ["0B7E9F0A-5C1D-4E2F-8A3B-9C4D5E6F7A8B"]}}},
            "WHERE id IN {p0:Array(UUID)} " + STORED + "LIMIT {p1:UInt64}",
            {"p0": ["0b7e9f0a-5c1d-4e2f-8a3b-9c4d5e6f7a8b"], "p1": 100},
        ),
        (
            {"filters": {"metadata.zip": "02458"}},
            "WHERE JSONExtractString(metadata, {p0:String}) IN {p1:Array(String)} " + STORED + "LIMIT {p2:UInt64}",
            {"p0": "zip", "p1": ["02458"], "p2": 100},
        ),
        (
            {"filters": {"metadata.home.zip": ["1", "2"]}},
            "WHERE (JSONExtractString(metadata, {p0:String}) IN {p3:Array(String)} "
            "OR JSONExtractString(metadata, {p1:String}, {p2:String}) IN {p3:Array(String)}) "
            + STORED
            + "LIMIT {p4:UInt64}",
            {"p0": "home.zip", "p1": "home", "p2": "zip", "p3": ["1", "2"], "p4": 100},
        ),
        (
            {"sort": {"field": "created_date", "order": "desc"}},
            "ORDER BY created_date DESC, id ASC LIMIT {p0:UInt64}",
            {"p0": 100},
        ),
        (
            {"sort": [{"field": "city"}, {"field": "id", "order": "desc"}]},
            "ORDER BY city ASC, id DESC LIMIT {p0:UInt64}",
            {"p0": 100},
        ),
        ({"include_total": False}, STORED + "LIMIT {p0:UInt64}", {"p0": 100}),
    ],
)
def test_compile_json_gives_exactly(document: dict[str, Any], sql: str, parameters: dict[str, Any]) -> None:
    assert compiled(document) == (sql, parameters)


def test_compile_json_keeps_the_order_of_fields_and_splices_metadata() -> None:
    statement = compile_json(parse_query({"fields": ["metadata", "id", "created_date"], "limit": 1}))
    assert statement.sql == (
        "SELECT if(metadata = '', '{}', metadata) AS c0, id AS c1, created_date AS c2 FROM records "
        "ORDER BY country, status, created_date, id LIMIT {p0:UInt64} FORMAT Template SETTINGS "
        """format_template_row_format = '{"metadata":${c0:Raw},"id":${c1:JSON},"created_date":${c2:JSON}}', """
        + JSON_TAIL
    )


def test_compile_count_has_the_same_conditions_and_no_limit() -> None:
    statement = compile_count(parse_query({"filters": {"city": "Rome"}, "limit": 5, "offset": 5}))
    assert statement.sql == "SELECT count() FROM records WHERE city = {p0:String} FORMAT TSV"
    assert statement.parameters == {"p0": "Rome"}


@pytest.mark.parametrize(
    ("given", "keys"),
    [
        ("a1b2", ["a1b2"]),
        ("  A1B2 ", ["A1B2"]),
        ("+1 (202) 555-0101", ["+1 (202) 555-0101", "+12025550101"]),
        ("0044 20 7946 0000", ["0044 20 7946 0000", "+442079460000"]),
        ("12025550101", ["12025550101", "+12025550101"]),
    ],
)
def test_compile_looks_for_what_may_be_a_key_among_ids_and_phones(given: str, keys: list[str]) -> None:
    statement = compile_count(parse_search({"q": [given]}))
    assert statement.sql == (
        "SELECT count() FROM records WHERE id IN (SELECT id FROM records WHERE hasAllTokens(words, {p0:Array(String)})"
        " UNION ALL SELECT id FROM records WHERE user_id IN {p1:Array(String)}"
        " UNION ALL SELECT id FROM records WHERE phone IN {p1:Array(String)}) FORMAT TSV"
    )
    assert statement.parameters["p1"] == keys


@pytest.mark.parametrize("given", ["Acme", "12 High Street", "Acme 7", "2024 2025 ab"])
def test_compile_looks_for_words_alone_when_they_are_no_key(given: str) -> None:
    assert "user_id" not in compile_count(parse_search({"q": [given]})).sql


def test_compile_csv_selects_every_field_and_asks_for_plain_rows() -> None:
    statement = compile_csv(parse_search({"q": ["Acme corp"], "limit": ["5"]}, download=True))
    columns = ", ".join(f"{field.csv} AS c{index}" for index, field in enumerate(FIELDS.values()))
    assert statement.sql == (
        f"SELECT {columns} FROM records WHERE hasAllTokens(words, {{p0:Array(String)}}) "
        "ORDER BY country, status, created_date, id LIMIT {p1:UInt64} FORMAT CSV SETTINGS "
        "date_time_output_format = 'iso', format_csv_null_representation = ''"
    )
    assert statement.parameters == {"p0": ["acme", "corp"], "p1": 5}


def test_compile_person_binds_the_id() -> None:
    statement = compile_person("user_id", "x' OR 1=1")
    assert "FROM records WHERE user_id = {p0:String} ORDER BY" in statement.sql
    assert statement.parameters == {"p0": "x' OR 1=1"}


def test_compile_person_refuses_another_column() -> None:
    with pytest.raises(ValueError, match="looked up by id or user_id, not by email"):
        compile_person("email", "x")


HOSTILE = [
    "x' OR '1'='1",
    "'; DROP TABLE records; --",
    "{p0:String}",
    "${c0:Raw}",
    "\\",
    "\\'",
    "a\tb\nc",
    "FORMAT CSV",
    "/* */",
    "$$x$$",
    "`id`",
    'a"b',
    "𝒳\u2028",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_hostile_value_leaves_the_statement_as_it_is(hostile: str) -> None:
    def shape(value: str) -> str:
        filters = {"name": value, "city": [value], "metadata.zip": value}
        return compile_json(parse_query({"filters": filters, "limit": 3})).sql

    assert shape(hostile) == shape("harmless")


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_hostile_metadata_path_is_a_parameter(hostile: str) -> None:
    document = {"filters": {f"metadata.{hostile}": "1"}}
    statement = compile_json(parse_query(document))
    assert statement.sql == compile_json(parse_query({"filters": {"metadata.zip": "1"}})).sql
    assert statement.parameters["p0"] == hostile


def test_the_statement_never_contains_a_value() -> None:
    document = {
        "filters": dict.fromkeys(("name", "city", "created_date", "ingested_at"), "2024-01-01"),
        "limit": 77,
    }
    assert "2024" not in compile_json(parse_query(document)).sql
    assert "77" not in compile_json(parse_query(json.loads(json.dumps(document)))).sql
