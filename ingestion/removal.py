"""Takes one job's rows out of `records` again; what another job delivered as well becomes that job's.

Everything here runs under the writer's lock (`ingestion.loader.LOCK`) and may be done again from its beginning, whatever
interrupted it. ClickHouse carries each step out part by part, and a query reads the parts that there were when it began: while
rows are being removed it may find some of the job's rows gone and others not yet, and a row of another job is always there.
"""

import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from config.clickhouse import client as clients
from config.clickhouse import cluster
from config.clickhouse.client import StoreUnavailable, store_errors
from config.errors import DomainError

# Looked at in one go; ClickHouse keeps their ids in memory, about 100 bytes each.
PART_ROWS = 4_000_000
RECEIVERS_MAX = 10_000
CHANGE_WAIT_S = 6 * 3600.0
FAILING_S = 60.0
POLL_S = 0.02
POLL_MAX_S = 0.5
_NOBODY = uuid.UUID(int=0)


class HandOverOnCluster(DomainError):
    """409: what other jobs delivered as well cannot be handed over on a cluster yet."""

    status = 409
    code = "NOT_FOR_CLUSTER"


def count_rows(job_id: uuid.UUID) -> int:
    """The rows in `records` that are this job's. Raises `StoreUnavailable`."""
    return _number("SELECT count() FROM records WHERE job_id = {job:UUID}", job_id)


def hand_over(
    job_id: uuid.UUID, *, part: int, of: int, names: Callable[[list[uuid.UUID]], Mapping[uuid.UUID, str]]
) -> int:
    """Gives rows that another job delivered too to that job, with its file's name: those of one `part` `of` all ids.

    Returns how many. The same part again ends what was begun and counts it once; when the count is kept, `forget` it.
    `names`: the files' names of jobs. Raises `StoreUnavailable`, `HandOverOnCluster`.
    """
    shared = (
        "FROM deliveries WHERE job_id != {job:UUID}"
        f" AND id IN (SELECT id FROM records WHERE job_id = {{job:UUID}} AND cityHash64(id) % {of} = {part})"
    )
    if cluster.name():
        if _number(f"SELECT count() {shared}", job_id):
            raise HandOverOnCluster(
                "Other jobs delivered rows of this one, too. On a cluster it cannot be rolled back yet."
            )
        return 0
    client, table = clients.writer(), _table(job_id, part)
    with store_errors():
        client.command(
            f"CREATE TABLE IF NOT EXISTS {table} (id UUID, job_id UUID, file String) ENGINE = Join(ANY, LEFT, id)"
        )
        receivers = client.query(
            f"SELECT DISTINCT job_id {shared} LIMIT {RECEIVERS_MAX}", parameters={"job": str(job_id)}
        )
        known = names([row[0] for row in receivers.result_rows])
        client.command(
            f"INSERT INTO {table} SELECT id, min(job_id) AS receiver,"
            " transform(toString(receiver), {jobs:Array(String)}, {files:Array(String)}, '')"
            f" {shared} GROUP BY id",
            parameters={"job": str(job_id), "jobs": [str(one) for one in known], "files": list(known.values())},
        )
        rows = int(client.query(f"SELECT count() FROM {table}").result_rows[0][0])
        if rows:
            full = f"{clients.database_name()}.{table}"
            _change(
                "records",
                f"UPDATE job_id = joinGet('{full}', 'job_id', id), source_file = joinGet('{full}', 'file', id)"
                f" WHERE job_id = '{job_id}' AND joinGet('{full}', 'job_id', id) != '{_NOBODY}'",
            )
    return rows


def forget(job_id: uuid.UUID, *, part: int) -> None:
    """Drops what a part was noted in. Harmless when it is gone."""
    with store_errors():
        clients.writer().command(f"DROP TABLE IF EXISTS {_table(job_id, part)}")


def remove(job_id: uuid.UUID) -> None:
    """Deletes the rows that are left to the job, and what was noted of its deliveries. Raises `StoreUnavailable`."""
    for table in ("records", "deliveries"):
        # A change looks at every part of the table, even for nothing.
        if _number(f"SELECT count() FROM {table} WHERE job_id = {{job:UUID}}", job_id):
            with store_errors():
                _change(table, f"DELETE WHERE job_id = '{job_id}'")


def wait_for_changes(table: str = "records") -> None:
    """Waits until ClickHouse has carried out every change of the table, also those of a process that has died.

    Raises `StoreUnavailable` when one fails again and again, or takes for ever.
    """
    begun, pause_s, failing_since = time.monotonic(), POLL_S, 0.0
    while True:
        left = clients.writer().query(
            f"SELECT count(), max(latest_fail_reason) FROM {cluster.everywhere('system.mutations')}"
            " WHERE database = currentDatabase() AND table = {table:String} AND NOT is_done AND NOT is_killed",
            parameters={"table": cluster.local(table)},
        )
        count, why = left.result_rows[0]
        if not count:
            return
        now = time.monotonic()
        failing_since = (failing_since or now) if why else 0.0
        if now - begun > CHANGE_WAIT_S or (failing_since and now - failing_since > FAILING_S):
            raise StoreUnavailable(
                f"A change of {table} has not come to its end: {str(why)[:300] or 'it takes too long'}"
            )
        time.sleep(pause_s)
        pause_s = min(1.5 * pause_s, POLL_MAX_S)


def _change(table: str, change: str) -> None:
    """Has ClickHouse change a table's rows, and waits for it: the request itself would not outlast a large table."""
    clients.writer().command(f"ALTER TABLE {cluster.in_place(table)} {change}", settings={"mutations_sync": 0})
    wait_for_changes(table)


def _number(sql: str, job_id: uuid.UUID) -> int:
    with store_errors():
        answer: Any = clients.writer().query(sql, parameters={"job": str(job_id)})
        return int(answer.result_rows[0][0])


def _table(job_id: uuid.UUID, part: int) -> str:
    return f"roll_back_{job_id.hex}_{part}"
