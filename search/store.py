"""The only reader of `records`: runs compiled statements and hands on ClickHouse's own bytes.

Rows are never parsed into Python objects: JSON arrives as finished objects, CSV as finished lines.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import structlog
from clickhouse_connect.driver.exceptions import ClickHouseError, OperationalError
from django.conf import settings
from urllib3.exceptions import HTTPError, ReadTimeoutError

from config.clickhouse.client import StoreUnavailable, reader
from config.errors import DomainError
from search.query.compile import Statement, compile_count, compile_json, compile_person
from search.query.request import RecordQuery
from search.query.values import is_uuid

log = structlog.get_logger(__name__)

# A download runs as long as its reader takes it; each delivered chunk keeps its hold alive.
STREAM_TIMEOUT_S = 300

# Look ids, e-mails and phones up in their projections whatever the table's size: by itself ClickHouse reads the whole of a
# table below a million rows, five times slower at that size.
READ_SETTINGS = {"min_table_rows_to_use_projection_index": 0}

_TIMED_OUT = frozenset({159, 160, 209, 394})  # TIMEOUT_EXCEEDED, TOO_SLOW, SOCKET_TIMEOUT, QUERY_WAS_CANCELLED
_TOO_EXPENSIVE = frozenset({158, 191, 241, 290, 307, 396})  # rows, set size, memory, rows or bytes to read or to return
_AWAY = frozenset(
    {60, 81, 202, 210, 216, 242, 373, 999}
)  # not migrated yet, too busy, network, read-only table, sessions


class QueryTimeout(DomainError):
    """504: the search did not end within QUERY_TIMEOUT_S."""

    status = 504
    code = "QUERY_TIMEOUT"

    def __init__(self) -> None:
        super().__init__(
            "The search took too long and was stopped. Nothing was charged; add a filter, or ask for fewer records.",
            details={"timeout_s": settings.QUERY_TIMEOUT_S},
        )


class QueryTooExpensive(DomainError):
    """422: the search passed a limit on memory or rows."""

    status = 422
    code = "QUERY_TOO_EXPENSIVE"

    def __init__(self) -> None:
        super().__init__(
            "The search needs more memory or rows than one request may use. Nothing was charged; add a filter, ask for "
            "fewer records, or leave the total out with include_total = false."
        )


@dataclass(frozen=True, slots=True)
class Page:
    """One answer: `rows` are JSON objects joined by commas, `total` the records that matched (None when not asked for)."""

    rows: bytes
    returned: int
    total: int | None
    elapsed_ms: int


def fetch_page(query: RecordQuery, *, query_id: str) -> Page:
    """The page that `query` asks for; raises QueryTimeout, QueryTooExpensive, StoreUnavailable."""
    started = time.monotonic()
    rows, returned = _objects(compile_json(query), query_id)
    total = None
    if query.include_total:
        # A page that is not full ends the records, so its own length says how many there are.
        is_last = returned < query.limit and (returned > 0 or query.offset == 0)
        total = query.offset + returned if is_last else int(_run(compile_count(query), f"{query_id}-count"))
    return Page(rows, returned, total, _since_ms(started))


def fetch_person(person_id: str, *, query_id: str) -> Page:
    """The one record with this id, its own or its source's, or an empty page; raises as `fetch_page`."""
    started = time.monotonic()
    # A source's own id may look like a UUID too, so a miss there is looked for here.
    columns = ("id", "user_id") if is_uuid(person_id) else ("user_id",)
    rows, returned = b"", 0
    for column in columns:
        rows, returned = _objects(compile_person(column, person_id), f"{query_id}-{column}")
        if returned:
            break
    return Page(rows, returned, returned, _since_ms(started))


def _objects(statement: Statement, query_id: str) -> tuple[bytes, int]:
    rows, _, returned = _run(statement, query_id).rpartition(b"\n")
    return rows, int(returned)


def _run(statement: Statement, query_id: str) -> bytes:
    with _errors():
        answer: bytes = reader().raw_query(
            statement.sql,
            parameters=statement.parameters,
            settings={**READ_SETTINGS, "max_execution_time": settings.QUERY_TIMEOUT_S, "query_id": query_id},
        )
    return answer


def _since_ms(started: float) -> int:
    return round((time.monotonic() - started) * 1000)


@contextmanager
def stream(statement: Statement, *, query_id: str, chunk_bytes: int) -> Iterator[Iterator[bytes]]:
    """Opens a `compile_csv` statement: an iterator of byte chunks that end anywhere. Leaving the block ends the query.

    Opening and each chunk raise QueryTimeout, QueryTooExpensive, StoreUnavailable.
    """
    with _errors():
        response: Any = reader().raw_stream(
            statement.sql,
            parameters=statement.parameters,
            settings={**READ_SETTINGS, "max_execution_time": STREAM_TIMEOUT_S, "query_id": query_id},
        )
    try:
        yield _chunks(response, chunk_bytes)
    finally:
        # Closed rather than drained: the server sees the reader go and stops the query.
        response.close()


def _chunks(response: Any, chunk_bytes: int) -> Iterator[bytes]:
    # A server that fails in the middle of an answer writes this random tag and the reason where rows should be.
    tag = response.headers.get("X-ClickHouse-Exception-Tag", "").encode()
    seam = b""
    while True:
        with _errors():
            chunk: bytes = response.read(chunk_bytes)
        if not chunk:
            return
        if tag and tag in seam + chunk:
            log.error("stream_failed", reason=chunk[chunk.find(tag) :][:300].decode("utf-8", "replace"))
            raise StoreUnavailable("The data store stopped in the middle of the answer. Send the request again.")
        seam = chunk[-len(tag) :] if tag else b""
        yield chunk


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        if _is_timeout(error):
            raise QueryTimeout from error
        _raise_for(error)
    except ClickHouseError as error:
        _raise_for(error)
    except ReadTimeoutError as error:
        raise QueryTimeout from error
    except (HTTPError, OSError) as error:
        log.warning("store_unavailable", error=type(error).__name__)
        raise StoreUnavailable from error


def _raise_for(error: ClickHouseError) -> NoReturn:
    code = getattr(error, "code", None)
    if code in _TIMED_OUT:
        raise QueryTimeout from error
    if code in _TOO_EXPENSIVE:
        raise QueryTooExpensive from error
    if code is None or code in _AWAY:
        log.error("store_unavailable", error=type(error).__name__, code=code)
        raise StoreUnavailable from error
    # Anything else is a defect in our own SQL: logged, answered with 500, and never shown.
    raise error


def _is_timeout(error: BaseException | None) -> bool:
    while error is not None:
        # Of urllib3's timeouts this one alone: a refused connection is one of theirs, too.
        if isinstance(error, ReadTimeoutError):
            return True
        error = getattr(error, "reason", None) or error.__cause__
    return False
