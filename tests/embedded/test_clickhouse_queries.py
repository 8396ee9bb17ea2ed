"""Queries through clickhouse-connect: types, parameters, settings, formats and errors."""

import json
from http.client import HTTPConnection

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from tests.embedded.conftest import Connect

AWKWARD_TEXT = "tab\t, quote ', backslash \\, line\nbreak, ä 漢"


def post(
    address: tuple[str, int], path: str, body: str, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    """One plain HTTP request: (status, headers in lower case, body)."""
    connection = HTTPConnection(*address, timeout=30)
    try:
        connection.request("POST", path, body.encode(), headers or {})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def test_ping_answers_ok(client: Client) -> None:
    assert client.ping() is True


def test_server_version_is_26(client: Client) -> None:
    assert str(client.server_version).startswith("26.")


def test_string_parameter_arrives_unchanged(client: Client) -> None:
    rows = client.query("SELECT {text:String}", parameters={"text": AWKWARD_TEXT}).result_rows
    assert rows == [(AWKWARD_TEXT,)]


def test_array_parameter_arrives_unchanged(client: Client) -> None:
    rows = client.query("SELECT {texts:Array(String)}", parameters={"texts": ["a", "it's", ""]}).result_rows
    assert rows == [(["a", "it's", ""],)]


def test_long_parameters_are_taken_as_a_form(connect: Connect) -> None:
    client = connect(form_encode_query_params=True)
    rows = client.query("SELECT length({text:String})", parameters={"text": "x" * 300_000}).result_rows
    assert rows == [(300_000,)]


def test_empty_result_keeps_its_columns(client: Client, table: str) -> None:
    result = client.query(f"SELECT number, word FROM {table}")
    assert (result.result_rows, result.column_names) == ([], ("number", "word"))


def test_setting_applies_to_its_query_alone(client: Client) -> None:
    statement = "SELECT toString(getSetting('max_block_size'))"
    before = client.query(statement).result_rows
    assert client.query(statement, settings={"max_block_size": 1234}).result_rows == [("1234",)]
    assert client.query(statement).result_rows == before


def test_set_statement_does_not_outlive_its_request(client: Client) -> None:
    before = client.query("SELECT getSetting('max_block_size')").result_rows
    client.command("SET max_block_size = 77")
    after = {client.query("SELECT getSetting('max_block_size')").result_rows[0] for _ in range(20)}
    assert after == {before[0]}


def test_database_of_the_request_is_used(connect: Connect) -> None:
    assert connect(database="system").query("SELECT currentDatabase()").result_rows == [("system",)]


def test_raw_query_gives_clickhouse_json(client: Client) -> None:
    answer = json.loads(client.raw_query("SELECT 1 AS one", fmt="JSONCompact"))
    assert (answer["meta"], answer["data"], answer["rows"]) == ([{"name": "one", "type": "UInt8"}], [[1]], 1)


def test_query_arrow_gives_a_table(client: Client) -> None:
    assert client.query_arrow("SELECT number FROM numbers(3)").to_pydict() == {"number": [0, 1, 2]}


def test_syntax_error_has_clickhouses_code_and_status(client: Client, address: tuple[str, int]) -> None:
    with pytest.raises(DatabaseError, match=r"Code: 62\.(?s:.*)SYNTAX_ERROR"):
        client.query("SELEC 1")
    status, headers, body = post(address, "/", "SELEC 1")
    assert (status, headers["x-clickhouse-exception-code"]) == (400, "62")
    assert body.startswith(b"Code: 62. DB::Exception: ")


def test_unknown_table_is_404(address: tuple[str, int]) -> None:
    status, headers, _ = post(address, "/", "SELECT * FROM nowhere_at_all")
    assert (status, headers["x-clickhouse-exception-code"]) == (404, "60")


def test_unknown_setting_is_refused_and_does_not_stick(client: Client, address: tuple[str, int]) -> None:
    status, headers, _ = post(address, "/?no_such_setting=1", "SELECT 1")
    assert (status, headers["x-clickhouse-exception-code"]) == (404, "115")
    assert client.query("SELECT 1").result_rows == [(1,)]


def test_rows_of_a_query_that_failed_are_not_in_the_next_answer(address: tuple[str, int]) -> None:
    template = (
        " FORMAT Template SETTINGS max_block_size = 2, format_template_row_format = '<${number:JSON}>',"
        r" format_template_resultset_format = '${data:None}\n${rows:Escaped}'"
    )
    whole = "/?wait_end_of_query=1"
    for _ in range(20):
        status, _, _ = post(address, whole, f"SELECT number + throwIf(number = 9) AS number FROM numbers(10){template}")
        assert status == 500
        _, _, body = post(address, whole, f"SELECT number FROM numbers(3){template}")
        assert body == b"<0>\n<1>\n<2>\n3"


def test_unknown_user_is_refused(address: tuple[str, int]) -> None:
    status, headers, _ = post(address, "/", "SELECT 1", {"X-ClickHouse-User": "mallory"})
    assert (status, headers["x-clickhouse-exception-code"]) == (403, "516")


def test_request_of_a_web_page_is_refused(address: tuple[str, int]) -> None:
    assert post(address, "/", "SELECT 1", {"Origin": "https://example.com"})[0] == 403
    assert post(address, "/", "SELECT 1", {"Host": "rebound.example.com"})[0] == 403


def test_get_request_may_not_write(address: tuple[str, int]) -> None:
    connection = HTTPConnection(*address, timeout=30)
    connection.request("GET", "/?query=CREATE%20DATABASE%20evil")
    response = connection.getresponse()
    assert (response.status, response.headers["X-ClickHouse-Exception-Code"]) == (500, "164")
    response.read()
    connection.close()


def test_headers_tell_id_format_and_summary(address: tuple[str, int]) -> None:
    _, headers, body = post(address, "/?query_id=my-id&wait_end_of_query=1", "SELECT number FROM numbers(5) FORMAT CSV")
    assert (headers["x-clickhouse-query-id"], headers["x-clickhouse-format"]) == ("my-id", "CSV")
    assert json.loads(headers["x-clickhouse-summary"])["result_rows"] == "5"
    assert body == b"0\n1\n2\n3\n4\n"


def test_several_requests_in_one_packet_are_answered_in_turn(address: tuple[str, int]) -> None:
    connection = HTTPConnection(*address, timeout=30)
    connection.connect()
    one = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\nSELECT "
    connection.sock.sendall(one + b"1" + one + b"2")
    received = b""
    while received.count(b"HTTP/1.1 200") < 2 or not received.endswith(b"0\r\n\r\n"):
        received += connection.sock.recv(65536)
    connection.close()
    assert [part.strip().split(b"\r\n")[-1] for part in received.split(b"0\r\n\r\n")[:2]] == [b"1", b"2"]


def test_malformed_request_is_400_and_closes(address: tuple[str, int]) -> None:
    connection = HTTPConnection(*address, timeout=30)
    connection.connect()
    connection.sock.sendall(b"NONSENSE\r\n\r\n")
    received = b""
    while chunk := connection.sock.recv(65536):
        received += chunk
    connection.close()
    assert received.startswith(b"HTTP/1.1 400 Bad Request\r\n")
