"""P5: many clients on one account, against the same work done by Postgres alone."""

import selectors
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol
from urllib.parse import urlsplit

import hiredis
from psycopg import pq

from benchmarks.figures import Finding, median_ratio, spread
from benchmarks.installation import Installation
from benchmarks.recorded import PackedCommands, record
from benchmarks.subjects import CREDITS, make_subject

GOAL = 10
CLIENTS = 64
ROUNDS = 5
ROUND_S = 2.0
ANSWER_TIMEOUT_S = 30
READ_BYTES = 65_536

_UPDATE = "UPDATE bench_account SET balance = balance - $1::bigint WHERE id = 1 AND balance >= $1::bigint"
_INSERT = "INSERT INTO bench_entry (account_id, amount, operation) VALUES (1, $1::bigint, $2::uuid)"
_TRANSACTION = (("BEGIN", 0), (_UPDATE, 1), (_INSERT, 2), ("COMMIT", 0))
_AT_ONCE = (
    (
        (
            f"WITH charged AS ({_UPDATE} RETURNING id) INSERT INTO bench_entry (account_id, amount, operation)"
            " SELECT id, $1::bigint, $2::uuid FROM charged"
        ),
        2,
    ),
)


class Client(Protocol):
    """A connection that does one call after the other."""

    def fileno(self) -> int: ...

    def begin(self) -> None:
        """Sends the first request of a call."""

    def advance(self) -> bool:
        """Reads what has come and goes on; True when the call is done."""

    def close(self) -> None: ...


def measure(installation: Installation, say: Callable[[str], None]) -> Finding:
    """Calls a second by 64 clients at once, on one account."""
    from credits import drain

    subject = make_subject(installation)
    commands = record(subject).packed()
    metered: list[float] = []
    plain: list[float] = []
    in_one: list[float] = []
    with _table() as url:
        for number in range(ROUNDS + 1):
            ours = _rate([_Metered(commands) for _ in range(CLIENTS)])
            theirs = _rate([_Statements(url, _TRANSACTION) for _ in range(CLIENTS)])
            at_once = _rate([_Statements(url, _AT_ONCE) for _ in range(CLIENTS)])
            drain.drain_once()
            if number:
                metered.append(ours)
                plain.append(theirs)
                in_one.append(at_once)
    say(f"P5: {ROUNDS} rounds done")
    return Finding(
        "P5",
        "hold + settle on one hot account against UPDATE + INSERT",
        ["", "calls/s, median (lowest–highest round)", "ratio", "goal"],
        [
            ["Postgres, a transaction of UPDATE … WHERE balance >= … and INSERT", spread(plain), "1.0", ""],
            ["the same in one statement and round trip", spread(in_one), f"{median_ratio(in_one, plain):.1f}", ""],
            ["hold + settle", spread(metered), f"{median_ratio(metered, plain):.1f}", f"≥ {GOAL}"],
        ],
        f"{CLIENTS} connections of one client process (`epoll`, the same loop for both sides), {ROUNDS} rounds of "
        f"{ROUND_S:.0f} s a side in turns. Ours sends the very admit and settle that `credits.metering` sends, recorded; each "
        "answer is read and must be OK. Postgres' side sends BEGIN, UPDATE, INSERT, COMMIT, prepared, one after the other as a "
        "driver does, synchronous_commit on, as `make up` runs it; its second line is one WITH statement that does both. The "
        "drain rests during a round.",
    )


@contextmanager
def _table() -> Iterator[str]:
    """An account and its entries as a plain design keeps them; gives the connection string."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS bench_entry, bench_account")
        cursor.execute("CREATE TABLE bench_account (id bigint PRIMARY KEY, balance bigint NOT NULL)")
        cursor.execute("INSERT INTO bench_account VALUES (1, %s)", [CREDITS])
        cursor.execute(
            "CREATE TABLE bench_entry (id bigserial PRIMARY KEY, account_id bigint NOT NULL, amount bigint NOT NULL,"
            " operation uuid NOT NULL, created_at timestamptz NOT NULL DEFAULT now())"
        )
    try:
        yield connection.connection.info.dsn
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE bench_entry, bench_account")


def _rate(clients: list[Client]) -> float:
    """Calls a second of clients that each do one call after the other."""
    done = 0
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client, selectors.EVENT_READ)
            client.begin()
        begun = time.perf_counter()
        while (taken := time.perf_counter() - begun) < ROUND_S:
            ready = selector.select(ANSWER_TIMEOUT_S)
            if not ready:
                raise RuntimeError(f"no answer within {ANSWER_TIMEOUT_S} s")
            for key, _ in ready:
                client = key.fileobj  # type: ignore[assignment]
                if client.advance():
                    done += 1
                    client.begin()
    for client in clients:
        client.close()
    return done / taken


class _Metered:
    """A client of Redis: admit, then settle, each answered with OK."""

    def __init__(self, commands: PackedCommands) -> None:
        from django.conf import settings

        url = urlsplit(settings.REDIS_URL)
        self._socket = socket.create_connection((url.hostname, url.port), timeout=ANSWER_TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._commands = commands
        self._reader = hiredis.Reader()
        self._settle = b""

    def fileno(self) -> int:
        return self._socket.fileno()

    def begin(self) -> None:
        admit, self._settle = self._commands.fresh()
        self._socket.sendall(admit)

    def advance(self) -> bool:
        self._reader.feed(self._socket.recv(READ_BYTES))
        reply = self._reader.gets()
        if reply is False:
            return False
        if not isinstance(reply, list) or reply[0] != b"OK":
            raise RuntimeError(f"Redis answered {reply!r}")
        if self._settle:
            self._socket.sendall(self._settle)
            self._settle = b""
            return False
        return True

    def close(self) -> None:
        self._socket.close()


class _Statements:
    """A client of Postgres: prepared statements one after the other, each with so many of amount and operation."""

    def __init__(self, dsn: str, statements: Sequence[tuple[str, int]]) -> None:
        self._connection = pq.PGconn.connect(dsn.encode())
        if self._connection.status != pq.ConnStatus.OK:
            raise RuntimeError(self._connection.error_message.decode())
        for place, (text, _) in enumerate(statements):
            self._connection.prepare(b"s%d" % place, text.encode())
        self._connection.nonblocking = 1
        self._statements = statements
        self._place = 0

    def fileno(self) -> int:
        return self._connection.socket

    def begin(self) -> None:
        self._place = 0
        self._send()

    def _send(self) -> None:
        values = [b"2", str(uuid.uuid4()).encode()][: self._statements[self._place][1]]
        self._connection.send_query_prepared(b"s%d" % self._place, values)
        self._connection.flush()

    def advance(self) -> bool:
        self._connection.consume_input()
        if self._connection.is_busy():
            return False
        result = self._connection.get_result()
        changes = self._statements[self._place][1] > 0
        if result is None or result.status != pq.ExecStatus.COMMAND_OK or (changes and result.command_tuples != 1):
            raise RuntimeError(f"Postgres answered {result and result.error_message.decode()!r}")
        while self._connection.get_result() is not None:
            pass
        self._place += 1
        if self._place == len(self._statements):
            return True
        self._send()
        return False

    def close(self) -> None:
        self._connection.finish()
