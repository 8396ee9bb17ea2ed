"""Who and what is measured: a customer with credits to burn, a million records, the requests and their SQL."""

import http.client
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from benchmarks.installation import FOLDER, ROWS, Installation
from benchmarks.load import HOST, http_request

if TYPE_CHECKING:
    from accounts.keys import PresentedKey
    from search.query.compile import Statement

CREDITS = 10**11
PERSONS = 500
QUERY: dict[str, Any] = {
    "filters": {
        "country": "USA",
        "created_date": {"gte": "2024-01-01", "lte": "2024-12-31"},
        "status": ["active", "pending"],
    },
    "fields": ["user_id", "email", "name"],
    "limit": 100,
    "sort": {"field": "created_date", "order": "desc"},
    "include_total": False,
}


@dataclass(frozen=True)
class Subject:
    """A customer made for this run, whose key has no rate limit."""

    api_key: str
    key: "PresentedKey"


@dataclass(frozen=True)
class Comparison:
    """The same question asked of the product and of ClickHouse, as bytes ready to send."""

    name: str
    metered: list[bytes]
    direct: list[bytes]


def make_subject(installation: Installation) -> Subject:
    """A new customer with credits for any load and a key without a limit."""
    from django.conf import settings

    from accounts import keys

    made = json.loads(
        installation.manage(
            "create_customer", "--email", "bench@example.com", "--name", "Bench", "--credits", str(CREDITS), "--json"
        )
    )
    issued = json.loads(installation.manage("create_key", "--account", made["account_id"], "--rpm", "0", "--json"))
    presented = keys.parse(issued["api_key"], pepper=settings.KEY_PEPPER)
    if presented is None:
        raise RuntimeError("create_key printed something that is not a key")
    return Subject(issued["api_key"], presented)


def load_records(installation: Installation, say: Callable[[str], None]) -> int:
    """Makes sure that the generated records are loaded; how many there are."""
    from config.clickhouse.client import writer

    def count() -> int:
        return int(writer().query("SELECT count() FROM records").result_rows[0][0])

    if count() < ROWS * 0.95:
        say(f"Loading {ROWS:,} generated records, once …")
        with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
            path = Path(folder) / "records.csv"
            installation.manage("generate_records", "--rows", str(ROWS), "--out", str(path))
            installation.manage("ingest", str(path), "--json", "--again")
        # Merges would go on for a while and be measured with the first rounds.
        writer().command("OPTIMIZE TABLE records FINAL")
    return count()


def query_comparison(subject: Subject) -> Comparison:
    """A filtered and sorted page of 100 records."""
    from search.query.compile import compile_json
    from search.query.request import parse_query

    body = json.dumps(QUERY).encode()
    headers = {"X-API-Key": subject.api_key, "Content-Type": "application/json"}
    return Comparison(
        "POST /api/v1/query",
        [http_request("POST", "/api/v1/query", headers=headers, body=body)],
        [_direct(compile_json(parse_query(QUERY)))],
    )


def person_comparison(subject: Subject) -> Comparison:
    """Lookups of persons by their source's id, each connection going round the same ids."""
    from config.clickhouse.client import reader
    from search.query.compile import compile_person

    found = reader().query(f"SELECT user_id FROM records WHERE user_id != '' ORDER BY cityHash64(id) LIMIT {PERSONS}")
    ids = [row[0] for row in found.result_rows]
    return Comparison(
        "GET /person/{id}",
        [http_request("GET", f"/person/{person}", headers={"X-API-Key": subject.api_key}) for person in ids],
        [_direct(compile_person("user_id", person)) for person in ids],
    )


def clickhouse_port() -> int:
    """Where the engine listens."""
    from django.conf import settings

    return urlsplit(settings.CLICKHOUSE_URL).port or 8123


def check_same_rows(comparison: Comparison, web_port: int) -> None:
    """Raises RuntimeError when the two sides do not answer with the same records."""
    metered = json.loads(_exchange(web_port, comparison.metered[0]))["data"]
    rows, _, returned = _exchange(clickhouse_port(), comparison.direct[0]).rpartition(b"\n")
    if json.loads(b"[" + rows + b"]") != metered or len(metered) != int(returned):
        raise RuntimeError(f"{comparison.name}: the product and ClickHouse answered with different records")


def _direct(statement: "Statement") -> bytes:
    """The statement as a plain client of ClickHouse posts it, as the same read-only user and with the same deadline."""
    from clickhouse_connect.driver.binding import bind_query
    from django.conf import settings

    from config.clickhouse.client import database_name
    from search.store import READ_SETTINGS

    sql, bound = bind_query(statement.sql, dict(statement.parameters))
    options = {"database": database_name(), "max_execution_time": settings.QUERY_TIMEOUT_S, **READ_SETTINGS, **bound}
    text = sql if isinstance(sql, bytes) else sql.encode()
    return http_request("POST", f"/?{urlencode(options)}", headers={"X-ClickHouse-User": "reader"}, body=text)


def _exchange(port: int, request: bytes) -> bytes:
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    method, target, _ = first.split(" ")
    headers = dict(line.split(": ", 1) for line in lines)
    connection = http.client.HTTPConnection(HOST, port, timeout=60)
    try:
        connection.request(method, target, body or None, headers)
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise RuntimeError(f"{first[:100]} was answered with {answer.status}: {text[:400]!r}")
    return text
