"""Reads the stores for the checker, with SQL and Redis commands of its own."""

import json
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any, TypeVar

import clickhouse_connect
import psycopg
import redis

from tests.faults.evidence import Account, Command, Entry, Evidence, Grant, Live, Seen, SetAside, UsageRow

PARTITIONS = 64
CONSUMERS = ("ledger", "usage")
TIMEOUT_S = 10
TRIES_MAX = 100
SETTLE_S = 5.0
POLL_S = 0.2
Row = TypeVar("Row")

_ACCOUNTS = "SELECT number, balance, reserve, epoch, drained_seq, credit_seq FROM accounts_account ORDER BY number"
_UNCOPIED = "SELECT count(*) FROM credits_reserveusage WHERE copied_at IS NULL"
_ENTRIES = """
SELECT t.id, a.number, t.type, t.kind, t.amount,
       (SELECT coalesce(sum(d.amount), 0)::bigint FROM credits_grantdraw d WHERE d.entry_id = t.id),
       extract(epoch FROM t.created_at)::float, t.reason, coalesce(t.operation::text, ''), t.charged_total,
       t.epoch, t.seq, t.credit_seq, t.api_key
  FROM credits_credittransaction t JOIN accounts_account a ON a.id = t.account_id ORDER BY t.id
"""
_GRANTS = """
SELECT g.id::text, a.number, CASE WHEN g.entered_at IS NULL THEN 0 ELSE g.amount END, g.remaining,
       (SELECT coalesce(sum(d.amount), 0)::bigint FROM credits_grantdraw d WHERE d.grant_id = g.id)
       - (SELECT coalesce(sum(r.amount), 0)::bigint FROM credits_grantreturn r
            JOIN credits_grantdraw d ON d.id = r.draw_id WHERE r.grant_id = g.id AND d.grant_id = g.id)
  FROM credits_creditgrant g JOIN accounts_account a ON a.id = g.account_id
"""
_COMMANDS = """
SELECT a.number, c.credit_seq, c.kind, c.amount, c.epoch, c.seq
  FROM credits_command c JOIN accounts_account a ON a.id = c.account_id
"""
_SET_ASIDE = """
SELECT a.number, s.epoch, s.seq, s.reason, s.debit, s.event
  FROM credits_setaside s LEFT JOIN accounts_account a ON a.id = s.account_id
"""
_USAGE = """
SELECT account_number, toString(operation), request_id, event_id, toInt64(status), toInt64(rows), toInt64(credits)
  FROM usage FINAL
"""


class Observer:
    """Knows where the stores are. Each reading opens connections of its own, for stores come and go."""

    def __init__(self, *, database_url: str, redis_url: str, clickhouse_url: str) -> None:
        self._database_url = database_url
        self._redis_url = redis_url
        self._clickhouse_url = clickhouse_url

    def fill(self, evidence: Evidence) -> None:
        """Puts what the stores hold now into `evidence`, all of one moment.

        A grant may expire while they are read one after the other; then they are read again, and what that takes is given
        time. Every change of an account raises one of its counts, so rows that are the same before and after were the same
        in between.
        """
        deadline = time.monotonic() + SETTLE_S
        for _ in range(TRIES_MAX):
            self._read(evidence)
            with psycopg.connect(self._database_url, connect_timeout=TIMEOUT_S) as connection:
                same = self._accounts(connection) == evidence.accounts
            if same and (_agree(evidence) or time.monotonic() > deadline):
                return
            time.sleep(POLL_S)
        raise TimeoutError("The accounts do not come to rest.")

    def _read(self, evidence: Evidence) -> None:
        with psycopg.connect(self._database_url, connect_timeout=TIMEOUT_S) as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            evidence.accounts = self._accounts(connection)
            evidence.entries = _rows(connection, _ENTRIES, Entry)
            evidence.grants = _rows(connection, _GRANTS, Grant)
            evidence.commands = _rows(connection, _COMMANDS, Command)
            evidence.set_aside = [_aside(*row) for row in connection.execute(_SET_ASIDE).fetchall()]
        with closing(clickhouse_connect.get_client(dsn=self._clickhouse_url, autogenerate_session_id=False)) as client:
            evidence.usage = [UsageRow(*row) for row in client.query(_USAGE).result_rows]
        self.read_counters(evidence)

    def read_counters(self, evidence: Evidence) -> None:
        """Only what stands in Redis, for the accounts that `evidence` has."""
        with closing(self._redis()) as client:
            generation = _generation(client)
            evidence.live = [_live(client, account.number, generation) for account in evidence.accounts]
            evidence.undrained = sum(
                len(_beyond(client, p, consumer)) for p in range(PARTITIONS) for consumer in CONSUMERS
            )
            evidence.open_holds = sum(client.zcard(f"{{p{partition:02d}}}:holds") for partition in range(PARTITIONS))

    def agrees(self) -> bool:
        """Whether nothing waits to be copied and every live balance, with the reserve, is the ledger's balance now."""
        evidence = Evidence()
        try:
            with psycopg.connect(self._database_url, connect_timeout=TIMEOUT_S) as connection:
                evidence.accounts = self._accounts(connection)
                uncopied = connection.execute(_UNCOPIED).fetchone()
            self.read_counters(evidence)
        except (psycopg.Error, redis.RedisError):
            return False
        return uncopied == (0,) and _agree(evidence)

    def nothing_is_held(self) -> bool:
        """Whether every hold was settled, released or swept."""
        with psycopg.connect(self._database_url, connect_timeout=TIMEOUT_S) as connection:
            evidence = Evidence(accounts=self._accounts(connection))
        self.read_counters(evidence)
        return evidence.open_holds == 0 and all(live.held == 0 for live in evidence.live)

    def oldest_unbooked(self) -> float | None:
        """When the oldest event was journalled that the ledger has not booked; None when it has booked all."""
        with closing(self._redis()) as client:
            first = [events[0] for p in range(PARTITIONS) if (events := _beyond(client, p, "ledger"))]
        return min((int(str(stream_id).partition("-")[0]) / 1000 for stream_id in first), default=None)

    def glance(self, numbers: Iterable[int], *, at: float) -> list[Seen]:
        """The counters of these accounts at this moment; those that do not count now are left out."""
        with closing(self._redis()) as client:
            generation = _generation(client)
            lives = [_live(client, number, generation) for number in numbers]
        return [Seen(live.account, at, live.balance, live.held) for live in lives if live.usable]

    def _redis(self) -> "redis.Redis":
        return redis.Redis.from_url(
            self._redis_url, decode_responses=True, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S
        )

    def _accounts(self, connection: "psycopg.Connection[Any]") -> list[Account]:
        return _rows(connection, _ACCOUNTS, Account)


def _agree(evidence: Evidence) -> bool:
    """Whether the journal is empty and every live balance, with the reserve, is the ledger's."""
    accounts = {account.number: account for account in evidence.accounts}
    return evidence.undrained == 0 and all(
        live.balance + accounts[live.account].reserve == accounts[live.account].balance
        and live.applied == accounts[live.account].credit_seq
        for live in evidence.live
        if live.usable
    )


def _generation(client: "redis.Redis") -> str:
    replication: Any = client.info("replication")
    return str(replication["master_replid"])


def _live(client: "redis.Redis", number: int, generation: str) -> Live:
    values: Any = client.hgetall(f"{{p{number % PARTITIONS:02d}}}:acct:{number}")
    complete = {"bal", "held", "applied", "epoch", "gen"} <= values.keys() and "pending" not in values
    balance, held, applied, epoch = (int(values.get(name, 0)) for name in ("bal", "held", "applied", "epoch"))
    holds = sum(name.startswith("h:") for name in values)
    return Live(number, complete and values["gen"] == generation, balance, held, applied, epoch, holds)


def _beyond(client: "redis.Redis", partition: int, consumer: str) -> list[str]:
    """Stream ids of the events beyond a consumer's cursor."""
    tag = f"{{p{partition:02d}}}"
    cursor: Any = client.get(f"{tag}:cursor:{consumer}")
    events: Any = client.xrange(f"{tag}:journal", f"({cursor}" if cursor else "-", "+")
    return [stream_id for stream_id, _ in events]


def _rows(connection: "psycopg.Connection[Any]", statement: str, made: Callable[..., Row]) -> list[Row]:
    return [made(*row) for row in connection.execute(statement.encode()).fetchall()]


def _aside(number: int | None, epoch: int | None, seq: int | None, reason: str, debit: int, event: Any) -> SetAside:
    usage = json.loads(event["usage"]) if event.get("usage") else {}
    journalled = str(event.get("stream_id", "0")).partition("-")[0]
    return SetAside(
        number,
        epoch,
        seq,
        reason,
        debit,
        int(journalled) / 1000,
        str(event.get("operation", "")),
        str(usage.get("request_id", "")),
    )


class Watch:
    """Looks at the counters ten times a second while the load runs."""

    def __init__(self, observer: Observer, numbers: list[int]) -> None:
        self.seen: list[Seen] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, args=[observer, numbers], daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join(timeout=20)

    def _look(self, observer: Observer, numbers: list[int]) -> None:
        while not self._ended.wait(0.1):
            try:
                self.seen += observer.glance(numbers, at=time.time())
            except redis.RedisError:
                continue
