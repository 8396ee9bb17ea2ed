"""From an HTTP request to an answer: who asks, what is asked, and how the result goes back."""

from __future__ import annotations

import contextlib
import itertools
import json
import secrets
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from embedded.clickhouse import codecs, formats, guard
from embedded.clickhouse.engine import DEFAULT_DATABASE, Result, Session, SessionPool, quoted, quoted_name
from embedded.clickhouse.errors import (
    AUTHENTICATION_FAILED,
    BAD_ARGUMENTS,
    NOT_IMPLEMENTED,
    READONLY,
    ClickHouseError,
    refusal,
)
from embedded.clickhouse.http import BytesLike, Channel, ClientGoneError, Request, form_fields
from embedded.clickhouse.running import Running, RunningQueries
from embedded.clickhouse.statements import (
    INSERT_HEAD_MAX_BYTES,
    DataInsert,
    changes_connection,
    data_insert,
    first_word,
    kill_query,
)

STATEMENT_MAX_BYTES = 256 * 1024 * 1024
# Smaller answers go as they are: compressing them costs more time than loopback takes to carry them.
COMPRESS_FROM_BYTES = 16 * 1024
_INSERT_PROBE_BYTES = 64 * 1024
_READING = frozenset({"select", "with"})
_SAFE_FOR_GET = frozenset({"select", "with", "show", "describe", "desc", "explain", "exists"})
_TRANSPORT_PARAMS = frozenset(
    """
    query database default_format query_id session_id session_check session_timeout user password quota_key role
    wait_end_of_query buffer_size compress decompress client_protocol_version enable_http_compression log_comment
    send_progress_in_http_headers http_headers_progress_interval_ms cancel_http_readonly_queries_on_client_close
    """.split()  # noqa: SIM905 - quoted one by one they read worse
)
_LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]", ""})


@dataclass(slots=True)
class Query:
    """A request understood: the statement, what is bound to it, and how its answer shall look."""

    user: str
    query_id: str
    database: str
    statement: str
    params: dict[str, str]
    settings: dict[str, str]
    output_format: str
    encoding: str | None
    buffered: bool
    insert: DataInsert | None = None
    data: Iterator[bytes] = field(default_factory=lambda: iter(()))

    def may_stream(self) -> bool:
        """Whether the answer goes out block by block: a SELECT in a format that can, not asked to wait for its end."""
        return not self.buffered and first_word(self.statement) in _READING and formats.can_stream(self.output_format)


class Service:
    """Answers requests on the engine's data folder. Thread-safe; one worker thread per request at work."""

    def __init__(self, path: Path, *, sessions: int, database: str, wait_s: float = 30.0) -> None:
        reader_profile = {"output_format_parallel_formatting": "0"}
        reader_profile |= {name: str(limit) for name, limit in guard.READER_LIMITS.items()}
        reader_profile["readonly"] = "2"  # last: nothing can be set behind it
        self._control = Session(path, "control", {})
        self._pools = {
            "default": SessionPool(path, "default", {}, sessions, wait_s),
            "reader": SessionPool(path, "reader", reader_profile, sessions, wait_s),
        }
        self.running = RunningQueries(self._control)
        self._control.execute(f"CREATE DATABASE IF NOT EXISTS {quoted_name(database)}")
        self._timezone = bytes(self._control.execute("SELECT timezone()").get_memview().view()).decode().strip()

    def answer(self, request: Request, channel: Channel) -> None:
        """Answer one request on its channel, errors included; raises only when the connection must close."""
        query_id = request.params.get("query_id") or str(uuid.uuid4())
        try:
            self._route(request, channel, query_id)
        except ClickHouseError as error:
            if channel.head_sent:
                raise ClientGoneError from error
            headers = [
                ("Content-Type", formats.TEXT_TYPE),
                ("X-ClickHouse-Exception-Code", str(error.code)),
                ("X-ClickHouse-Query-Id", query_id),
            ]
            channel.answer(error.status, headers, f"{error.text}\n".encode())

    def _route(self, request: Request, channel: Channel, query_id: str) -> None:
        host = request.headers.get("host", "").rpartition(":")[0] or request.headers.get("host", "")
        if "origin" in request.headers or host not in _LOCAL_HOSTS:
            # A web page that the developer happens to look at must not reach the data through the browser.
            raise refusal(AUTHENTICATION_FAILED, "Requests from web pages are refused.", "AUTHENTICATION_FAILED")
        if request.path in {"/ping", "/replicas_status"}:
            channel.answer(200, [("Content-Type", formats.TEXT_TYPE)], b"Ok.\n")
            return
        if request.path != "/" or request.method not in {"GET", "POST", "HEAD"}:
            channel.answer(404 if request.path != "/" else 405, [], b"There is no such address here.\n")
            return
        query = self._understand(request, channel, query_id)
        if not query.statement.strip():
            channel.answer(200, [("Content-Type", formats.TEXT_TYPE)], b"Ok.\n")
            return
        kill = kill_query(query.statement, query.params)
        if kill is not None:
            killed = [
                running
                for wanted in kill.query_ids
                if (running := self.running.find(wanted, query.user)) and self.running.kill(running, wait=kill.wait)
            ]
            query = self._kill_report(query, [running.query_id for running in killed], kill.output_format)
        elif query.user == "reader":
            guard.check_statement(query.statement)
        self._run(query, channel)

    def _kill_report(self, query: Query, killed: list[str], output_format: str) -> Query:
        """The query whose answer is what KILL QUERY answers: one row for each query that it stopped."""
        ids = ", ".join(map(quoted, killed))
        statement = (
            "SELECT 'waiting' AS kill_status, arrayJoin(CAST([" + ids + "] AS Array(String))) AS query_id, "
            f"{quoted(query.user)} AS user"
        )
        return Query(
            user=query.user,
            query_id=query.query_id,
            database=DEFAULT_DATABASE,
            statement=statement,
            params={},
            settings={},
            output_format=output_format or query.output_format,
            encoding=None,
            buffered=True,
        )

    def _user(self, request: Request) -> str:
        user, password = request.credentials()
        if user not in self._pools or password:
            reason = f"{user}: Authentication failed: password is incorrect, or there is no user with such name."
            raise refusal(AUTHENTICATION_FAILED, reason, "AUTHENTICATION_FAILED")
        return user

    def _understand(self, request: Request, channel: Channel, query_id: str) -> Query:
        user = self._user(request)
        pieces = codecs.decoded(channel.body(), request.headers.get("content-encoding", "").lower())
        params = request.params
        if request.headers.get("content-type", "").startswith("multipart/form-data"):
            form = form_fields(request, _whole(pieces))
            params = params | {name: value.decode() for name, value in form.items()}
        settings = {
            name: value for name, value in params.items() if name not in _TRANSPORT_PARAMS and name[:6] != "param_"
        }
        if user == "reader":
            for name, value in settings.items():
                guard.check_setting(name, value)
        accepted = request.headers.get("accept-encoding", "") if params.get("enable_http_compression") == "1" else ""
        query = Query(
            user=user,
            query_id=query_id,
            database=params.get("database") or request.headers.get("x-clickhouse-database") or DEFAULT_DATABASE,
            statement=params.get("query", ""),
            params={name[6:]: value for name, value in params.items() if name[:6] == "param_"},
            settings=settings,
            output_format=params.get("default_format") or request.headers.get("x-clickhouse-format") or "TabSeparated",
            encoding=codecs.choose(accepted),
            buffered=params.get("wait_end_of_query") == "1" or request.method == "HEAD",
        )
        if request.method == "POST" and "boundary=" not in request.headers.get("content-type", ""):
            _read_statement(query, pieces)
        elif first_word(query.statement) not in _SAFE_FOR_GET and query.statement:
            raise refusal(READONLY, "A GET request only reads: use POST.", "READONLY")
        if not query.insert:
            query.output_format = formats.format_clause(query.statement) or query.output_format
        return query

    def _run(self, query: Query, channel: Channel) -> None:
        with self._pools[query.user].borrow(query.database, query.settings) as session:
            running = Running(query.query_id, query.user, session, channel)
            with self.running.track(running):
                if query.insert:
                    head = query.insert.head
                    started = time.perf_counter()
                    result = session.insert(head, query.insert.data_format, query.data)
                    self._reply(query, channel, result, b"", started)
                elif query.may_stream():
                    self._stream(query, channel, session)
                else:
                    self._execute(query, channel, session)

    def _execute(self, query: Query, channel: Channel, session: Session) -> None:
        started = time.perf_counter()
        if changes_connection(query.statement):
            session.forget_state()
        result = session.execute(query.statement, query.output_format, query.params)
        view = result.get_memview()
        body: BytesLike = view.view()
        if not len(body) and query.output_format == "Native" and first_word(query.statement) in _READING:
            body = _empty_native(query, session)
        self._reply(query, channel, result, body, started)

    def _reply(self, query: Query, channel: Channel, result: Result, body: BytesLike, started: float) -> None:
        summary = {
            "read_rows": result.storage_rows_read(),
            "read_bytes": result.storage_bytes_read(),
            "written_rows": result.rows_written(),
            "written_bytes": result.bytes_written(),
            "total_rows_to_read": result.storage_rows_read(),
            "result_rows": result.rows_read(),
            "result_bytes": memoryview(body).nbytes,
            "elapsed_ns": int((time.perf_counter() - started) * 1e9),
        }
        headers = self._headers(query)
        headers.append(("X-ClickHouse-Summary", json.dumps({name: str(value) for name, value in summary.items()})))
        if query.encoding and memoryview(body).nbytes >= COMPRESS_FROM_BYTES:
            compressor = codecs.compressor(query.encoding)
            body = compressor.feed(body) + compressor.finish()
            headers.append(("Content-Encoding", query.encoding))
        channel.answer(200, headers, body)

    def _stream(self, query: Query, channel: Channel, session: Session) -> None:
        with contextlib.closing(session.stream(query.statement, query.output_format, query.params)) as blocks:
            first = next(blocks, None)
            if first is None:
                # An empty result still has a header in most formats, which only a whole answer gives.
                self._execute(query, channel, session)
                return
            tag = secrets.token_hex(8)
            headers = [*self._headers(query), ("X-ClickHouse-Exception-Tag", tag)]
            compressor = codecs.compressor(query.encoding) if query.encoding else None
            if query.encoding:
                headers.append(("Content-Encoding", query.encoding))
            channel.begin_stream(headers)
            try:
                views = _views(itertools.chain([first], blocks))
                for view in formats.joined(query.output_format, views):
                    channel.stream(compressor.feed(view) if compressor else view)
                channel.stream(compressor.finish() if compressor else b"")
                channel.end_stream()
            except ClickHouseError as error:
                message = f"{error.text}\n".encode()
                note = b"\r\n__exception__\r\n%s\r\n%s%d %s\r\n__exception__\r\n"
                text = note % (tag.encode(), message, len(message), tag.encode())
                channel.stream(compressor.feed(text) + compressor.finish() if compressor else text)
                raise  # the answer stays without its end, so that no reader takes it for whole

    def _headers(self, query: Query) -> list[tuple[str, str]]:
        return [
            ("Content-Type", formats.content_type(query.output_format)),
            ("X-ClickHouse-Server-Display-Name", "embedded"),
            ("X-ClickHouse-Query-Id", query.query_id),
            ("X-ClickHouse-Format", query.output_format),
            ("X-ClickHouse-Timezone", self._timezone),
        ]

    def close(self) -> None:
        """Close every connection: call it from a thread that stays alive."""
        for pool in self._pools.values():
            pool.close()
        self._control.close()


def _views(results: Iterator[Result]) -> Iterator[memoryview]:
    for result in results:
        holder = result.get_memview()  # keeps the engine's memory while the consumer works on the view
        yield holder.view()


def _empty_native(query: Query, session: Session) -> bytes:
    described = session.execute(
        f"DESCRIBE TABLE ({formats.without_format(query.statement)})", "JSONCompact", query.params
    )
    rows = json.loads(bytes(described.get_memview().view()))["data"]
    return formats.empty_native_block((row[0], row[1]) for row in rows)


def _whole(pieces: Iterator[bytes], already: bytes = b"") -> bytes:
    body = bytearray(already)
    for piece in pieces:
        body += piece
        if len(body) > STATEMENT_MAX_BYTES:
            raise refusal(BAD_ARGUMENTS, f"The request is longer than {STATEMENT_MAX_BYTES} bytes.", "BAD_ARGUMENTS")
    return bytes(body)


def _read_statement(query: Query, pieces: Iterator[bytes]) -> None:
    """Set the query's statement from the body, or its insert and data when the body carries an INSERT's rows."""
    given = query.statement
    if given and first_word(given) == "insert":
        query.insert = data_insert(given)
        if query.insert is not None:
            rest = given[query.insert.data_offset :].encode()
            query.data = itertools.chain([rest], pieces)
    else:
        head = b""
        for probe in (_INSERT_PROBE_BYTES, INSERT_HEAD_MAX_BYTES):
            head = _at_least(probe, head, pieces)
            if first_word(head[:1024].decode("latin-1")) == "insert" and not given:
                found = data_insert(head.decode("latin-1"))
                if found is not None:
                    insert_head = found.head.encode("latin-1").decode()
                    query.insert = DataInsert(insert_head, found.data_format, found.data_offset)
                    query.data = itertools.chain([head[found.data_offset :]], pieces)
                    query.statement = insert_head
                    break
            else:
                break
        if query.insert is None:
            text = _whole(pieces, head).decode("utf-8", "replace")
            query.statement = f"{given}\n{text}" if given and text else given or text
    if query.insert is not None and query.params:
        raise refusal(NOT_IMPLEMENTED, "Bound parameters in an INSERT with data are not supported.", "NOT_IMPLEMENTED")


def _at_least(size: int, head: bytes, pieces: Iterator[bytes]) -> bytes:
    buffer = bytearray(head)
    while len(buffer) < size:
        piece = next(pieces, None)
        if piece is None:
            break
        buffer += piece
    return bytes(buffer)
