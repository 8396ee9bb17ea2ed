"""The usage log in ClickHouse: its only writer, and how an account's rows are read."""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal

import structlog
from django.db import connection

from accounts.services import note_uses
from config.clickhouse import cluster
from config.clickhouse.client import reader, store_errors, writer
from credits import counters, events
from credits.events import Event
from credits.models import ReserveUsage

log = structlog.get_logger(__name__)

GroupBy = Literal["day", "key", "endpoint"]
_GROUPS: dict[GroupBy, str] = {"day": "toDate(at)", "key": "key_id", "endpoint": "endpoint"}
_COLUMNS = (
    "account_number",
    "at",
    "event_id",
    "request_id",
    "operation",
    "key_id",
    "endpoint",
    "status",
    "rows",
    "credits",
    "duration_ms",
    "query",
)
HISTORY_MAX = 1000
STATEMENT_TIMEOUT_S = 5
ABANDONED_STATUS = 0
RESERVE_USAGE_KEPT = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class UsageReport:
    """An account's requests of some days: totals, the totals per group, and the latest requests (newest first)."""

    requests: int
    credits: int
    groups: list[dict[str, Any]]
    history: list[dict[str, Any]]


def drain_usage(partitions: Sequence[int], *, limit: int = 1000) -> int:
    """One pass: copies requests whose credits the ledger has booked into `usage`; how many events it passed.

    Follows the ledger's cursor, so that a row shows what was booked. Raises `RedisUnavailable`, `StoreUnavailable`,
    `django.db.OperationalError`; repeating a pass writes the same rows again, which ClickHouse replaces.
    """
    booked_up_to = dict(zip(partitions, counters.ledger_cursors(partitions), strict=True))
    moves, requests, passed = [], [], 0
    pages = counters.read_journal(partitions, consumer=counters.USAGE, limit=limit)
    for page in pages:
        behind = [
            (stream_id, fields)
            for stream_id, fields in page.events
            if counters.is_reached(booked_up_to[page.partition], stream_id)
        ]
        if not behind:
            continue
        passed += len(behind)
        moves.append((page.partition, page.cursor, behind[-1][0]))
        for stream_id, fields in behind:
            try:
                event = events.parse(stream_id, fields)
            except events.BadEvent:
                continue  # the ledger's consumer has set it aside and logged it
            if event.usage:
                requests.append(event)
    requests = _without_those_of_the_reserve(requests)
    _insert(requests)
    note_uses({event.key_id: event.at for event in requests})
    counters.move_cursors(moves, consumer=counters.USAGE)
    counters.insist(pages)
    return passed


def copy_reserve_usage(*, limit: int = 1000, now: datetime) -> int:
    """Copies requests that the reserve has paid into `usage`; how many. A row copied twice is replaced.

    Rows copied a week ago are forgotten. Raises `StoreUnavailable`, `django.db.OperationalError`.
    """
    waiting = list(ReserveUsage.objects.filter(copied_at=None).order_by("id")[:limit])
    if waiting:
        with store_errors():
            writer().insert(
                "usage",
                [_reserve_row(row) for row in waiting],
                column_names=_COLUMNS,
                settings=cluster.concurrent_insert_settings(),
            )
        note_uses({row.key_id: row.at for row in waiting})
        ReserveUsage.objects.filter(pk__in=[row.pk for row in waiting]).update(copied_at=now)
    old = ReserveUsage.objects.filter(copied_at__lt=now - RESERVE_USAGE_KEPT).values("pk")[:limit]
    ReserveUsage.objects.filter(pk__in=list(old.values_list("pk", flat=True))).delete()
    return len(waiting)


def _reserve_row(row: ReserveUsage) -> tuple[Any, ...]:
    return (
        row.account_number,
        row.at,
        f"reserve-{row.pk}",
        row.request_id,
        row.operation,
        row.key_id,
        row.endpoint,
        row.status,
        row.rows,
        row.credits,
        row.duration_ms,
        row.query,
    )


def _without_those_of_the_reserve(requests: list[Event]) -> list[Event]:
    """Leaves out requests that Redis has charged and the reserve, its reply being lost, has paid: they are logged there."""
    if not requests:
        return requests
    logged = set(
        ReserveUsage.objects.filter(operation__in={event.operation for event in requests}).values_list(
            "operation", "request_id"
        )
    )
    return [event for event in requests if not logged or (event.operation, _request_id(event)) not in logged]


def _request_id(event: Event) -> str:
    try:
        return str(json.loads(event.usage)["request_id"])
    except (ValueError, TypeError, KeyError):
        return ""


def _insert(requests: list[Event]) -> None:
    if not requests:
        return
    booked = _booked_credits(requests)
    rows = [
        row
        for event in requests
        if (row := _row(event, booked.get((event.account_number, event.operation), 0))) is not None
    ]
    if rows:
        with store_errors():
            writer().insert("usage", rows, column_names=_COLUMNS, settings=cluster.concurrent_insert_settings())


def _row(event: Event, credits_booked: int) -> tuple[Any, ...] | None:
    """The event as a row of `usage`; None, with a line in the log, when what the request reported cannot be read."""
    try:
        usage = json.loads(event.usage)
        return (
            event.account_number,
            event.at,
            f"{event.epoch}-{event.stream_id}",
            str(usage.get("request_id", "")),
            event.operation,
            event.key_id,
            str(usage.get("endpoint", "")),
            int(usage.get("status", ABANDONED_STATUS)),
            int(usage.get("rows", 0)),
            credits_booked,
            int(usage.get("duration_ms", 0)),
            str(usage.get("query", "")),
        )
    except (ValueError, TypeError, AttributeError):
        log.exception("usage_unreadable", stream_id=event.stream_id)
        return None


def _booked_credits(requests: list[Event]) -> dict[tuple[int, uuid.UUID], int]:
    """What the ledger has booked per (account number, operation) of what Redis has charged."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT asked.number, t.operation, sum(t.amount)::bigint"
            " FROM (SELECT DISTINCT * FROM unnest(%s::bigint[], %s::uuid[]) AS pairs(number, operation)) AS asked"
            " JOIN accounts_account a USING (number)"
            " JOIN credits_credittransaction t ON t.account_id = a.id AND t.operation = asked.operation"
            " WHERE t.type = 'debit' AND t.seq IS NOT NULL GROUP BY 1, 2",
            [[event.account_number for event in requests], [event.operation for event in requests]],
        )
        return {(number, operation): amount for number, operation, amount in cursor.fetchall()}


def report(*, account_number: int, since: date, until: date, group_by: GroupBy, limit: int = 100) -> UsageReport:
    """What an account asked from `since` to `until`, both days included, in UTC. Raises `StoreUnavailable`."""
    parameters = {
        "account": account_number,
        "since": datetime.combine(since, time(), UTC),
        "until": datetime.combine(until + timedelta(days=1), time(), UTC),
        "limit": min(limit, HISTORY_MAX),
    }
    where = "account_number = {account:UInt64} AND at >= {since:DateTime64(3)} AND at < {until:DateTime64(3)}"
    group = _GROUPS[group_by]
    groups = _rows(
        f'SELECT toString({group}) AS "group", count() AS requests, sum(credits) AS credits, sum(rows) AS rows'
        f" FROM usage FINAL WHERE {where} GROUP BY {group} ORDER BY {group} LIMIT 1000",
        parameters,
    )
    history = _rows(
        "SELECT at, request_id, key_id, endpoint, status, rows, credits, duration_ms"
        f" FROM usage FINAL WHERE {where} ORDER BY at DESC, event_id DESC LIMIT {{limit:UInt32}}",
        parameters,
    )
    return UsageReport(
        requests=sum(row["requests"] for row in groups),
        credits=sum(row["credits"] for row in groups),
        groups=groups,
        history=history,
    )


def _rows(statement: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    with store_errors():
        result = reader().query(statement, parameters=parameters, settings={"max_execution_time": STATEMENT_TIMEOUT_S})
    # The driver answers UTC without saying so.
    return [{**row, "at": row["at"].replace(tzinfo=UTC)} if "at" in row else row for row in result.named_results()]
