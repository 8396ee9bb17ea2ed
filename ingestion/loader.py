"""The only writer of `records`.

A record's id is the MD5 of the record itself, so "already there" is a question about ids. `load` asks it and inserts what is
new while it holds one lock for the whole installation: no other job can insert in between, and no query ever sees a
duplicate. Whatever is interrupted may be asked again.

The question costs a look at every id in the store. A loader of many chunks therefore keeps a filter of these ids in memory and
asks about those alone that the filter does not rule out; what others insert meanwhile it learns from the insert log.
"""

import hashlib
import time
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute
from django.conf import settings

from config.clickhouse import client as clients
from config.clickhouse import cluster, data_version
from config.clickhouse.client import StoreUnavailable, store_errors
from config.clickhouse.locks import advisory_lock, holds
from ingestion import insert_log
from ingestion.known_ids import KnownIds, first_of_each
from ingestion.removal import wait_for_changes

LOCK = "records-writer"
# Then the job sees whether it is to stop, and waits on: `ingestion.outages`.
LOCK_WAIT_S = 30.0
# Tables that hold the ids of one question, each with a name of its own: nobody else can empty it.
IDS_PREFIX = "ingest_ids_"
IDS_TABLES_LIMIT = 100
IN_FLIGHT_WAIT_S = 120.0
IDS_BY_KEY_MAX = 2_000
# A filter costs about as much as this many questions about all ids of a chunk. Small chunks are asked about at once.
QUESTIONS_PER_FILTER = 12
FILTER_ROWS_MIN = 10_000
# Inserts of others that a filter catches up with; it waits for so many only while other jobs have the lock.
OTHERS_MAX = 100
_NO_IDS = pa.table({"id": pa.array([], pa.binary(16))})


@dataclass(frozen=True)
class Loaded:
    """What became of a chunk's records: loaded + duplicate = the records given."""

    loaded: int
    duplicate: int


@dataclass(frozen=True)
class _Known:
    """`ids` that are there; `own`: how many of them this very chunk inserted before; `elsewhere`: those of other jobs."""

    ids: Any
    own: int
    elsewhere: pa.Table


class Loader:
    """Loads the chunks of one job. Raises `StoreUnavailable`."""

    def __init__(self, *, job_id: uuid.UUID, source_file: str) -> None:
        self._job_id, self._source_file = job_id, source_file
        self._filter: KnownIds | None = None
        self._seen = 0  # the filter holds the rows of all inserts up to this place of the insert log
        self._asked_rows = 0  # rows that questions without a filter have looked at
        with store_errors():
            _drop_forgotten_tables()

    def load(self, records: pa.Table, *, chunk: int, at: datetime) -> Loaded:
        """Inserts the records (CLEAN_SCHEMA) that are not there yet, all with `ingested_at` = `at`.

        Give the same `chunk` and `at` when the chunk is tried again: rows that the interrupted attempt had inserted count as
        loaded, not as duplicates. A record that another job has delivered is written down in `deliveries`.
        Raises `StoreUnavailable`, `LockBusy`.
        """
        if records.num_rows == 0:
            return Loaded(0, 0)
        ids = records.column("id")
        new = first_of_each(ids)
        with advisory_lock(LOCK, wait_s=LOCK_WAIT_S), store_errors():
            wait_for_writes_in_flight()
            known_ids = self._filter = self._up_to_date(self._filter, records.num_rows)
            suspects = ids if known_ids is None else ids.filter(pa.array(known_ids.may_hold(ids)))
            known = self._known(suspects, at)
            if known.elsewhere.num_rows:
                self._note_deliveries(known.elsewhere)
            if len(known.ids):
                new &= ~pa.compute.is_in(ids, value_set=known.ids).to_numpy()
            fresh = records if new.all() else records.filter(pa.array(new))
            if fresh.num_rows:
                place = insert_log.announce(at)
                if not holds(LOCK):
                    raise StoreUnavailable(
                        "The connection that held the writer's lock was lost. Run the same command again."
                    )
                self._insert(fresh, chunk=chunk, at=at)
                # Only now: of an insert that broke off the log tells the next attempt, and what came of it the store.
                if known_ids is not None:
                    known_ids.add(fresh.column("id"))
                    self._seen = place
        if fresh.num_rows:
            data_version.raise_version()
        loaded = fresh.num_rows + known.own
        return Loaded(loaded, records.num_rows - loaded)

    def _up_to_date(self, known_ids: KnownIds | None, rows: int) -> KnownIds | None:
        """The filter with what others have inserted since, a new one when that has become the cheaper way, or none."""
        if known_ids is not None:
            known_ids = self._with_inserts_of_others(known_ids)
        if known_ids is not None or rows < FILTER_ROWS_MIN:
            return known_ids
        stored = clients.writer().query("SELECT count() FROM records").result_rows[0][0]
        if self._asked_rows < QUESTIONS_PER_FILTER * stored:
            self._asked_rows += stored
            return None
        self._asked_rows = 0
        self._seen = insert_log.newest()
        known_ids = KnownIds(capacity=stored + stored // 4, bytes_max=settings.INGEST_FILTER_BYTES_MAX)
        _add_ids(known_ids, "SELECT id FROM records", {})
        return known_ids

    def _with_inserts_of_others(self, known_ids: KnownIds) -> KnownIds | None:
        """None when there were so many that the filter is better made anew."""
        inserts = insert_log.since(self._seen, limit=OTHERS_MAX)
        if len(inserts) == OTHERS_MAX:
            return None
        if inserts:
            at_ms = sorted({round(at.timestamp() * 1000) for _, at in inserts})
            _add_ids(
                known_ids,
                "SELECT id FROM records WHERE ingested_at IN"
                " (SELECT fromUnixTimestamp64Milli(arrayJoin({at_ms:Array(Int64)}), 'UTC'))",
                {"at_ms": at_ms},
            )
            self._seen = inserts[-1][0]
        return known_ids

    def _known(self, ids: Any, at: datetime) -> _Known:
        """Those of `ids` that are in `records`."""
        if not len(ids):
            return _Known(pa.chunked_array([], pa.binary(16)), 0, _NO_IDS)  # type: ignore[call-overload]
        client = clients.writer()
        table = f"{IDS_PREFIX}{uuid.uuid4().hex}"
        client.command(f"CREATE TABLE {table} (id UUID) ENGINE = Memory")
        client.insert_arrow(table, pa.table({"id": ids}))
        # Many ids are everywhere: one pass over the column is the cheapest way. A few are quicker looked up.
        by_key = len(ids) <= IDS_BY_KEY_MAX
        answer = client.query_arrow(
            "SELECT id, job_id = {job:UUID} AND toUnixTimestamp64Milli(ingested_at) = {at_ms:Int64} AS own,"
            f" job_id != {{job:UUID}} AS elsewhere FROM records WHERE id IN {table}",
            parameters={"job": str(self._job_id), "at_ms": round(at.timestamp() * 1000)},
            settings={
                "optimize_use_projections": int(by_key),
                "use_index_for_in_with_subqueries": int(by_key),
                "min_table_rows_to_use_projection_index": 0,
            },
        )
        client.command(f"DROP TABLE {table}")
        found = _plain_ids(answer)
        own = pa.compute.sum(answer.column("own").cast(pa.int64())).as_py() or 0
        there: Any = answer.column("elsewhere").cast(pa.bool_())
        elsewhere = pa.table({"id": found}).filter(there)
        return _Known(found, own, elsewhere)

    def _note_deliveries(self, records: pa.Table) -> None:
        """Before the chunk's rows: if these are interrupted, their second attempt notes the same again and nothing is lost."""
        job = _repeated(self._job_id.bytes, pa.binary(16), records.num_rows)
        clients.writer().insert_arrow("deliveries", records.append_column("job_id", job))

    def _insert(self, records: pa.Table, *, chunk: int, at: datetime) -> None:
        rows = records.num_rows
        table = records.drop_columns(["position"])
        constants: dict[str, Any] = {
            "job_id": _repeated(self._job_id.bytes, pa.binary(16), rows),
            "source_file": _repeated(self._source_file, pa.string(), rows),
            "ingested_at": _repeated(at, pa.timestamp("ms", "UTC"), rows),
        }
        for name, column in constants.items():
            table = table.append_column(name, column)
        clients.writer().insert_arrow(
            "records",
            table,
            settings={
                "query_id": f"ingest-{self._job_id.hex}-{chunk}-{uuid.uuid4().hex[:8]}",
                # If this very insert arrives twice, the second does nothing. Another set of rows has another token.
                "insert_deduplication_token": f"{self._job_id.hex}-{chunk}-{_fingerprint(records.column('id'))}",
                # One block, so that a chunk is there as a whole or not at all.
                "max_insert_block_size": rows + 1,
                "min_insert_block_size_rows": rows + 1,
                "min_insert_block_size_bytes": 0,
            },
        )


def wait_for_writes_in_flight() -> None:
    """What a process that died had begun may still be at work: only when it has ended is "already there" a fact.

    That is an insert, or a roll back's change of rows. Raises `StoreUnavailable`.
    """
    deadline = time.monotonic() + IN_FLIGHT_WAIT_S
    while True:
        running = clients.writer().query(
            f"SELECT count() FROM {cluster.everywhere('system.processes')}"
            f" WHERE {cluster.inserts_at_work('records', clients.database_name())}"
        )
        if running.result_rows[0][0] == 0:
            break
        if time.monotonic() > deadline:
            raise StoreUnavailable("An earlier insert has been running for too long. Try again when it is done.")
        time.sleep(0.1)
    wait_for_changes()


def _drop_forgotten_tables() -> None:
    """Tables of ids that a process left behind when it was killed an hour ago or earlier."""
    old = clients.writer().query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND startsWith(name, {prefix:String})"
        " AND metadata_modification_time < now() - INTERVAL 1 HOUR LIMIT {limit:UInt32}",
        parameters={"prefix": IDS_PREFIX, "limit": IDS_TABLES_LIMIT},
    )
    for (name,) in old.result_rows:
        clients.writer().command(f"DROP TABLE IF EXISTS {name}")


def _add_ids(known_ids: KnownIds, sql: str, parameters: dict[str, Any]) -> None:
    """Streams the ids that a statement selects into the filter."""
    with clients.writer().query_arrow_stream(sql, parameters=parameters) as stream:
        for batch in stream:
            known_ids.add(_plain_ids(batch))


def _plain_ids(answer: Any) -> Any:
    """The column `id` of an answer as a chunked array of 16 bytes each."""
    column = answer.column("id")
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    plain: list[Any] = [getattr(chunk, "storage", chunk) for chunk in chunks]
    return pa.chunked_array(plain, pa.binary(16))  # type: ignore[call-overload]


def _repeated(value: Any, kind: Any, rows: int) -> Any:
    return pa.repeat(pa.scalar(value, kind), rows)


def _fingerprint(ids: Any) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for part in ids.chunks:
        plain = getattr(part, "storage", part)
        digest.update(plain.buffers()[1][16 * plain.offset : 16 * (plain.offset + len(plain))])
    return digest.hexdigest()
